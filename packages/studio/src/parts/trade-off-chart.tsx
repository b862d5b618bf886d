/** Accuracy against attacker success: one point a setting, the current ones marked. SVG over d3-scale and d3-shape. */
import { scaleLinear } from 'd3-scale';
import { line } from 'd3-shape';
import type { JSX } from 'preact';
import { tradeOffs } from '../figures/figures.js';
import { chooseSetting, settingId, settingName } from '../story-state.js';

const WIDTH = 560;
const HEIGHT = 330;
const MARGIN = { left: 64, right: 16, top: 16, bottom: 50 };

interface Point {
  readonly id: string;
  readonly x: number;
  readonly y: number;
}

/** The chart; a click on a point chooses its setting. Keyboards have the slider, screen readers the table below it. */
export function TradeOffChart(): JSX.Element {
  const points: Point[] = tradeOffs().flatMap(({ id, accuracy, attacker }) =>
    accuracy && attacker ? [{ id, x: attacker.value, y: accuracy.value }] : [],
  );
  const x = scaleLinear()
    .domain([0, Math.max(0.6, ...points.map((point) => point.x + 0.05))])
    .nice()
    .range([MARGIN.left, WIDTH - MARGIN.right]);
  // From the tenth below the lowest point: settings differ by hundredths.
  const lowest = Math.min(0.8, ...points.map((point) => point.y));
  const y = scaleLinear()
    .domain([Math.max(0, Math.floor(lowest * 10 - 0.5) / 10), 1])
    .range([HEIGHT - MARGIN.bottom, MARGIN.top]);
  const path = line<Point>(
    (point) => x(point.x),
    (point) => y(point.y),
  );
  const current = [settingId(0), settingId(1)];
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const group = point.id === 'clean' ? 'clean' : (settingName(point.id).split(' ')[0] ?? '');
    groups.set(group, [...(groups.get(group) ?? []), point]);
  }
  const clean = groups.get('clean') ?? [];
  groups.delete('clean');
  const marks = [...points].sort((a, b) => Number(current.includes(a.id)) - Number(current.includes(b.id)));
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={describe(points, current)}>
        <g class="axis">
          {y.ticks(5).map((tick) => (
            <g key={tick}>
              <line x1={MARGIN.left} x2={WIDTH - MARGIN.right} y1={y(tick)} y2={y(tick)} />
              <text x={MARGIN.left - 8} y={y(tick) + 4} text-anchor="end">
                {tick.toFixed(2)}
              </text>
            </g>
          ))}
          {x.ticks(6).map((tick) => (
            <text key={tick} x={x(tick)} y={HEIGHT - MARGIN.bottom + 18} text-anchor="middle">
              {tick.toFixed(1)}
            </text>
          ))}
          <text x={(MARGIN.left + WIDTH) / 2} y={HEIGHT - 8} text-anchor="middle">
            attacker’s success: likeness of the rebuilt photo (SSIM) →
          </text>
          <text transform={`translate(13 ${(HEIGHT - MARGIN.bottom) / 2 + 8}) rotate(-90)`} text-anchor="middle">
            accuracy (AP) →
          </text>
        </g>
        {[...groups.values()].map((group) => (
          <path key={group[0]?.id} class="curve" d={path([...clean, ...group]) ?? ''} />
        ))}
        {[...groups].map(([name, group]) => {
          const last = group.at(-1);
          return last && groups.size > 1 ? (
            <text key={name} x={x(last.x) - 12} y={y(last.y) + 4} text-anchor="end">
              {name}
            </text>
          ) : null;
        })}
        {marks.map((point) => {
          const slot = current.indexOf(point.id);
          return (
            // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut for the mouse, hidden from the rest
            <g
              key={point.id}
              class={slot === -1 ? 'point' : `point current slot-${slot}`}
              onClick={() => chooseSetting(0, point.id)}
            >
              <title>{`${settingName(point.id)}: AP ${point.y.toFixed(3)}, SSIM ${point.x.toFixed(3)}`}</title>
              <circle class="target" cx={x(point.x)} cy={y(point.y)} r={14} />
              <circle cx={x(point.x)} cy={y(point.y)} r={slot === -1 ? 4.5 : 8} />
              {slot !== -1 && (
                <text x={x(point.x)} y={y(point.y) + (point.id === 'clean' ? -14 : 26)} text-anchor="middle">
                  {settingName(point.id)}
                </text>
              )}
            </g>
          );
        })}
        {points.length === 0 && (
          <text class="none" x={WIDTH / 2} y={HEIGHT / 2} text-anchor="middle">
            reading the bundles…
          </text>
        )}
      </svg>
    </figure>
  );
}

function describe(points: readonly Point[], current: readonly (string | undefined)[]): string {
  const said = points
    .filter(({ id }) => current.includes(id))
    .map(({ id, x, y }) => `${settingName(id)}: average precision ${y.toFixed(2)}, likeness ${x.toFixed(2)}`);
  return `Accuracy against the attacker’s success for ${points.length} settings. ${said.join('; ')}`;
}
