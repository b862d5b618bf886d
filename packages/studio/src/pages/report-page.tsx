/**
 * An audit report that the person opens: the JSON of `scrim audit`, or its HTML page, which carries the same JSON. It is
 * read in the tab and goes nowhere. What was measured, what failed and what is proven stay apart.
 */
import { type Signal, signal } from '@preact/signals';
import type { JSX } from 'preact';
import { useRef } from 'preact/hooks';
import { ScrimError } from 'scrim';
import { type AuditedBundle, type AuditReport, decodeAuditReport, type ReportedAttack } from 'scrim/audit';
import { VACUOUS_NATS } from '../figures/figures.js';
import { count } from '../format.js';
import { NoticeBox } from '../parts/notice.js';
import { Scrollable } from '../parts/scrollable.js';

const report: Signal<{ readonly name: string; readonly content: AuditReport } | undefined> = signal(undefined);
const problem: Signal<string | undefined> = signal(undefined);

const MAX_BYTES = 2 ** 26;
const VERDICTS: Readonly<Record<ReportedAttack['verdict'], string>> = {
  measured: 'measured',
  'too-short': 'at least this much',
  failed: 'failed: says nothing',
};

/** The page. */
export function ReportPage(): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  const open = report.value;
  return (
    <>
      <div class="intro">
        <h1>Audit report</h1>
        <p>
          Open the report of “scrim audit”: report.json, or the page it wrote. It is read in this tab and sent nowhere.
        </p>
      </div>
      <div class="buttons">
        <button type="button" onClick={() => input.current?.click()}>
          Open a report
        </button>
        {open && <span class="hint">{open.name}</span>}
      </div>
      <input
        ref={input}
        type="file"
        accept=".json,.html,application/json,text/html"
        class="hidden"
        aria-label="Report file"
        tabIndex={-1}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = '';
          if (file) void openReport(file);
        }}
      />
      {problem.value && (
        <NoticeBox
          title="This is no audit report"
          text="Choose the report.json that “scrim audit” wrote, or its page."
          detail={problem.value}
        />
      )}
      {open && <Report content={open.content} />}
    </>
  );
}

async function openReport(file: File): Promise<void> {
  try {
    if (file.size > MAX_BYTES) throw new ScrimError('LIMIT_EXCEEDED', `the report has ${file.size} bytes`);
    const text = await file.text();
    const content = decodeAuditReport(/^\s*</.test(text) ? jsonInPage(text) : text);
    report.value = { name: file.name, content };
    problem.value = undefined;
  } catch (error) {
    problem.value = ScrimError.from(error, 'INVALID_DATA', 'the report can not be read').message;
  }
}

/** The JSON a report's page carries. The page is parsed, never shown: its scripts and pictures do nothing here. */
function jsonInPage(html: string): string {
  const page = new DOMParser().parseFromString(html, 'text/html');
  const found = [...page.querySelectorAll('script[type="application/json"]')].find((script) =>
    script.textContent?.includes('scrim-audit'),
  );
  if (!found?.textContent) {
    throw new ScrimError('INVALID_DATA', 'the page carries no audit report; open the report.json beside it');
  }
  return found.textContent;
}

function Report({ content }: { readonly content: AuditReport }): JSX.Element {
  return (
    <div class="report">
      <p class="more">
        <span>{content.createdAt.slice(0, 10)}</span>
        <span>{content.createdBy}</span>
        <span>{content.data}</span>
        <span>{content.machine}</span>
      </p>
      {content.bundles.map((bundle) => (
        <BundleReport key={bundle.hash} bundle={bundle} />
      ))}
    </div>
  );
}

function BundleReport({ bundle }: { readonly bundle: AuditedBundle }): JSX.Element {
  return (
    <section aria-label={bundle.name}>
      <h2>{bundle.name}</h2>
      <p class="more">
        <span>
          {bundle.transform}, α {bundle.alpha}
        </span>
        <span>{count(bundle.releasedValues, 'released number')} an input</span>
        {bundle.accuracy && (
          <span>
            accuracy {bundle.accuracy.value.toFixed(3)}
            {bundle.cleanAccuracy && `, without noise ${bundle.cleanAccuracy.value.toFixed(3)}`}
          </span>
        )}
      </p>
      <div class="report">
        {bundle.attacks.map((attack) => (
          <AttackReport key={attack.name} attack={attack} />
        ))}
      </div>
      <section class="proven" aria-label={`Proven about ${bundle.name}`}>
        <h3>Proven</h3>
        {bundle.proven.length === 0 && <p>Nothing.</p>}
        <dl>
          {bundle.proven.map((figure) => (
            <div key={figure.name}>
              <dt>{figure.name}</dt>
              <dd>
                <strong>
                  {figure.value.toLocaleString('en', { maximumSignificantDigits: 4 })} {figure.unit}
                </strong>
                {figure.unit === 'nats' && figure.value > VACUOUS_NATS && (
                  <span class="vacuous">Vacuous for a single photo.</span>
                )}
                <span class="conditions">if {figure.assumptions.join('; ')}</span>
              </dd>
            </div>
          ))}
        </dl>
      </section>
    </section>
  );
}

function AttackReport({ attack }: { readonly attack: ReportedAttack }): JSX.Element {
  const floors = attack.baselines.filter(({ kind }) => kind === 'floor');
  const ceilings = attack.baselines.filter(({ kind }) => kind === 'ceiling');
  const reason = attack.live ? (attack.trusted ? undefined : attack.trustedReason) : attack.liveReason;
  const of = (list: ReportedAttack['baselines'], name: string): string =>
    list
      .flatMap((baseline) => baseline.values.filter((value) => value.name === name).map(({ mean }) => mean.toFixed(3)))
      .join(', ') || '–';
  return (
    <article>
      <h3>
        {attack.name} <span class={`verdict ${attack.verdict}`}>{VERDICTS[attack.verdict]}</span>
      </h3>
      <p>{attack.description}</p>
      {reason && <p class="more">{reason}</p>}
      <Scrollable label={`Values of ${attack.name}`}>
        <table>
          <thead>
            <tr>
              <th scope="col">value</th>
              <th scope="col">attacker</th>
              <th scope="col">95% interval</th>
              <th scope="col">worst tenth</th>
              <th scope="col">without looking</th>
              <th scope="col">without noise</th>
            </tr>
          </thead>
          <tbody>
            {attack.values.map((value) => (
              <tr key={value.name}>
                <th scope="row">
                  {value.name} {value.unit}
                </th>
                <td>{value.mean.toFixed(3)}</td>
                <td>
                  {value.interval.low.toFixed(3)} to {value.interval.high.toFixed(3)}
                </td>
                <td>{value.worstDecile?.toFixed(3) ?? '–'}</td>
                <td>{of(floors, value.name)}</td>
                <td>{of(ceilings, value.name)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scrollable>
      <p class="more">
        {count(attack.samples, 'sample')}, trained on {attack.trainedOn.toLocaleString('en')}
      </p>
    </article>
  );
}
