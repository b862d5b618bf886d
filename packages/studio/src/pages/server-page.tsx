/** The running server: its models, their versions and states, what waits, how long requests take; live. */
import { scaleLinear } from 'd3-scale';
import { line } from 'd3-shape';
import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import { duration } from '../format.js';
import { Notice } from '../parts/notice.js';
import { Scrollable } from '../parts/scrollable.js';
import { type LoadPoint, load, look, lookError, watchServer } from '../server-state.js';

const WIDTH = 560;
const HEIGHT = 150;
const SHOWN_S = 120;

/** The page. */
export function ServerPage(): JSX.Element {
  useEffect(() => watchServer(), []);
  const now = look.value;
  const points = load.value;
  const latest = points.at(-1);
  return (
    <>
      <div class="intro">
        <h1>The server</h1>
        <p>
          It runs the remote halves and knows neither photos nor noise. What stands here it tells anybody who asks, by
          the v2 protocol and /metrics; asked once a second while this page is open.
        </p>
      </div>
      {lookError.value !== undefined && <Notice error={lookError.value} />}
      {now && (
        <>
          <p class="fact">
            {now.name} {now.version}, {now.models.length} models,{' '}
            {now.models.filter(({ state }) => state === 'READY').length} ready
          </p>
          <div class="columns charts">
            <LoadChart
              title="Requests a second"
              points={points}
              series={[{ name: 'requests', value: (point) => point.requestsPerSecond }]}
              latest={latest ? `${latest.requestsPerSecond.toFixed(1)} a second now` : 'waiting for the second look'}
            />
            <LoadChart
              title="Time of a request"
              points={points}
              series={[
                { name: 'p50', value: (point) => point.p50 },
                { name: 'p99', value: (point) => point.p99 },
              ]}
              latest={latencyText(points)}
            />
          </div>
          <Scrollable label="Models">
            <table class="models">
              <thead>
                <tr>
                  {[
                    'model',
                    'version',
                    'state',
                    'requests',
                    'failed',
                    'waiting',
                    'queue',
                    'compute',
                    'p50',
                    'p95',
                    'p99',
                  ].map((heading) => (
                    <th scope="col" key={heading}>
                      {heading}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {now.models.map((model) => (
                  <tr key={`${model.name} ${model.version}`}>
                    <th scope="row">{model.name}</th>
                    <td>{model.version}</td>
                    <td>
                      <span class={`state ${model.state.toLowerCase()}`} title={model.reason}>
                        {model.state.toLowerCase()}
                      </span>
                    </td>
                    <td>{model.requests}</td>
                    <td>{model.failures}</td>
                    <td>{model.waiting}</td>
                    <td>{ms(model.queueMs)}</td>
                    <td>{ms(model.computeMs)}</td>
                    {[0, 1, 2].map((i) => (
                      <td key={i}>{ms(model.percentiles?.[i])}</td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </Scrollable>
          <p class="more">
            Queue and compute are means since the start; percentiles are read from the histogram’s buckets and lie
            between their edges.
          </p>
        </>
      )}
    </>
  );
}

function LoadChart(props: {
  readonly title: string;
  readonly points: readonly LoadPoint[];
  readonly series: readonly { readonly name: string; value(point: LoadPoint): number | undefined }[];
  readonly latest: string;
}): JSX.Element {
  const { title, points, series, latest } = props;
  const end = points.at(-1)?.at ?? 0;
  const x = scaleLinear()
    .domain([end - SHOWN_S * 1000, end])
    .range([40, WIDTH - 8]);
  const all = points.flatMap((point) => series.flatMap(({ value }) => value(point) ?? []));
  const y = scaleLinear()
    .domain([0, Math.max(1, ...all)])
    .nice(4)
    .range([HEIGHT - 22, 8]);
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong> <span>{latest}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title} over the last two minutes: ${latest}`}>
        <g class="axis">
          {y.ticks(3).map((tick) => (
            <g key={tick}>
              <line x1={40} x2={WIDTH - 8} y1={y(tick)} y2={y(tick)} />
              <text x={34} y={y(tick) + 4} text-anchor="end">
                {tick}
              </text>
            </g>
          ))}
          <text x={40} y={HEIGHT - 4}>
            2 minutes ago
          </text>
          <text x={WIDTH - 8} y={HEIGHT - 4} text-anchor="end">
            now
          </text>
        </g>
        {series.map(({ name, value }, i) => {
          const path = line<LoadPoint>(
            (point) => x(point.at),
            (point) => y(value(point) ?? 0),
          ).defined((point) => value(point) !== undefined);
          return (
            <g key={name} class={`series-${i}`}>
              <path class="curve" d={path(points) ?? ''} />
              {points.map((point) => {
                const found = value(point);
                return found === undefined || points.length > 60 ? null : (
                  <circle key={point.at} cx={x(point.at)} cy={y(found)} r={2} />
                );
              })}
            </g>
          );
        })}
      </svg>
    </figure>
  );
}

function latencyText(points: readonly LoadPoint[]): string {
  const last = [...points].reverse().find(({ p50 }) => p50 !== undefined);
  if (!last) return 'no request while this page was open';
  return `p50 ${ms(last.p50)}, p99 ${ms(last.p99)} at the last request`;
}

function ms(value: number | undefined): string {
  return value === undefined ? '–' : duration(value);
}
