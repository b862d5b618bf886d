/**
 * The audit's page: one self-contained HTML file for somebody who is answerable for privacy. No script, no request to
 * anywhere; light, dark and on paper. What was measured and what is proven stand in different tables, and an attack that
 * failed or ran too short is marked as such wherever it is named.
 */
import { type AttackValue, type AuditedBundle, type AuditReport, type ReportedAttack, tradeOffs } from 'scrim/audit';
import { curveChart, tradeOffChart } from './audit-charts.js';

/** A picture of the page. */
export interface PagePicture {
  /** Name of the photo or face. */
  readonly id: string;
  /** What it shows: 'original', 'what was sent', an attack's name. */
  readonly label: string;
  /** JPEG in base64. */
  readonly jpeg: string;
  readonly width: number;
  readonly height: number;
}

/** Pictures by bundle name, in groups: each is a grid of its photos (rows) and labels (columns). */
export type PagePictures = ReadonlyMap<
  string,
  readonly { readonly title: string; readonly pictures: readonly PagePicture[] }[]
>;

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #56606c; --line: #d4d9e0; --ground: #fff; --panel: #f5f6f8;
  --good: #1d6b3a; --warn: #8a5a00; --bad: #a3261b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a9b1bc; --line: #363c45; --ground: #15181c;
  --panel: #1d2126; --good: #7fd09a; --warn: #e9b65c; --bad: #f09a90; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2.2rem 1.2rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; } h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; } p { margin: .45rem 0; max-width: 46rem; } .soft { color: var(--soft); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0; font-size: .92rem; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem;
  width: 100%; } caption { text-align: left; color: var(--soft); font-size: .85rem; padding: 0 0 .4rem; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; } thead th { vertical-align: bottom; } th:first-child, td:first-child, .text { text-align: left; }
td small, th small { display: block; color: var(--soft); font-weight: 400; font-size: .8rem; line-height: 1.35; }
.reason { min-width: 15rem; max-width: 24rem; } .badge { display: inline-block; border: 1px solid currentColor;
  border-radius: 3px; padding: 0 .4em; font-size: .78rem; font-weight: 600; white-space: nowrap; }
.measured { color: var(--good); } .too-short { color: var(--warn); } .failed { color: var(--bad); }
.grid { display: grid; gap: .5rem; margin: .6rem 0 1.2rem; align-items: start; }
.grid .head { font-size: .8rem; color: var(--soft); align-self: end; } figure { margin: 0; }
img { width: 100%; height: auto; display: block; border-radius: 3px; } img.tiles { image-rendering: pixelated; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem 1.6rem; margin: 1rem 0; }
.charts figcaption { font-size: .85rem; color: var(--soft); } svg { max-width: 100%; height: auto; display: block; }
.note { background: var(--panel); border-left: 3px solid var(--line); padding: .6rem .9rem; margin: 1rem 0; font-size: .92rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; margin: .8rem 0; } ul { margin: .2rem 0; padding-left: 1.1rem; }
@media (max-width: 640px) { .facts { grid-template-columns: 1fr; } .facts dt { margin-top: .4rem; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --ground: #fff; --panel: #f3f3f3; --good: #1d6b3a;
  --warn: #8a5a00; --bad: #a3261b; } body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, h3 { break-after: avoid; } tr, figure, .grid, .note { break-inside: avoid; } section.bundle { break-before: page; }
  .scroll { overflow: visible; } table { font-size: 8pt; } .reason { min-width: 0; } }
`;

const VERDICTS: Readonly<Record<ReportedAttack['verdict'], string>> = {
  measured: 'measured',
  'too-short': 'too short to trust',
  failed: 'failed attack',
};

/** Renders the page. */
export function renderAuditPage(report: AuditReport, pictures: PagePictures): string {
  const { bundles } = report;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>What an attacker gets: ${escapeHtml(bundles.map(({ name }) => name).join(', '))}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>What an attacker gets</h1>
<p>Attackers who know the model, the transform and all of its parameters, but not the key, were trained on photos of their
own and tried on releases of photos they had not seen.</p>
<dl class="facts">
${facts(report)}
</dl>
</header>
<main>
<section>
<h2>In short</h2>
${summaryTable(bundles)}
<div class="note"><p><strong>How to read it.</strong> <em>Floor</em> is what somebody gets who does not look at the
release, <em>ceiling</em> what the same attacker gets without noise. ${badge('measured')} this attacker got this far; a
better one may get further. ${badge('too-short')} it ran too short or on too little data: it got at least this far.
${badge('failed')} it did not beat its floor, or does not work without noise either: that is no sign of privacy.</p></div>
${tradeOffSection(bundles)}
</section>
${bundles.map((bundle) => bundleSection(bundle, pictures.get(bundle.name) ?? [])).join('\n')}
<section>
<h2>What this does not say</h2>
<ul>
<li>An attack is a lower bound on what can be learnt. Only a proven bound says what cannot.</li>
<li>Figures hold for photos like those that were tried, one release each unless an attack says otherwise.</li>
<li>Releases can be linked to their photos far better than faces can be recognised: nobody is anonymous to someone who
has the photo.</li>
<li>Whoever has the key has the activation.</li>
</ul>
</section>
</main>
</body>
</html>
`;
}

function facts({ createdAt, createdBy, command, machine, data, bundles }: AuditReport): string {
  const rows: [string, string][] = [
    ['Audited', bundles.map(({ name, hash }) => `${name} (${hash.slice(0, 12)})`).join(', ')],
    ['Data', data],
    ['Made', `${createdAt.slice(0, 10)} by ${createdBy} on ${machine}`],
    ['Again with', command],
  ];
  return rows.map(([name, text]) => `<dt>${name}</dt><dd>${escapeHtml(text)}</dd>`).join('\n');
}

function summaryTable(bundles: readonly AuditedBundle[]): string {
  const attacks = [...new Set(bundles.flatMap((bundle) => bundle.attacks.map(({ name }) => name)))];
  const rows = attacks.map((name) => {
    const cells = bundles.map((bundle) => {
      const attack = bundle.attacks.find((candidate) => candidate.name === name);
      const [value] = attack?.values ?? [];
      if (!attack || !value) return '<td><span class="soft">not run</span></td>';
      return (
        `<td>${show(value.mean, value.unit)} ${attack.verdict === 'measured' ? '' : badge(attack.verdict)}` +
        `<small>floor ${plainBaseline(attack, 'floor')}</small><small>ceiling ${plainBaseline(attack, 'ceiling')}</small></td>`
      );
    });
    const value = bundles.flatMap((bundle) => bundle.attacks.find((candidate) => candidate.name === name) ?? [])[0]
      ?.values[0];
    return `<tr><th scope="row">${escapeHtml(name)}<small>${escapeHtml(value?.name ?? '')}</small></th>${cells.join('')}</tr>`;
  });
  const accuracy = bundles.map(({ accuracy: figure, cleanAccuracy }) =>
    figure
      ? `<td>${figure.value.toFixed(3)}<small>${cleanAccuracy ? `without noise ${cleanAccuracy.value.toFixed(3)}` : ''}</small></td>`
      : '<td><span class="soft">not recorded</span></td>',
  );
  const accuracyName = bundles.flatMap(({ accuracy: figure }) => figure?.name ?? [])[0] ?? 'accuracy';
  const proven = bundles.map(({ proven: bounds }) => {
    const [first] = bounds;
    return first
      ? `<td>${first.value.toLocaleString('en')} ${escapeHtml(first.unit ?? '')}<small>proven under assumptions: ${escapeHtml(first.name)}</small></td>`
      : '<td><span class="soft">none</span></td>';
  });
  return `<div class="scroll"><table>
<caption>Headline value of each attack, higher is worse for privacy.</caption>
<thead><tr><td></td>${bundles.map(({ name, transform, alpha }) => `<th scope="col">${escapeHtml(name)}<small>${escapeHtml(transform)}, α ${alpha}</small></th>`).join('')}</tr></thead>
<tbody>
<tr><th scope="row">Accuracy that is left<small>${escapeHtml(accuracyName)}</small></th>${accuracy.join('')}</tr>
${rows.join('\n')}
<tr><th scope="row">Bound on what a release tells</th>${proven.join('')}</tr>
</tbody>
</table></div>`;
}

function tradeOffSection(bundles: readonly AuditedBundle[]): string {
  const found = tradeOffs(bundles).filter(({ points }) => points.length > 1);
  if (found.length === 0) {
    return '<p class="soft">Accuracy is drawn against attackers where two bundles or more have a recorded accuracy.</p>';
  }
  const clean = bundles.flatMap(({ cleanAccuracy }) => cleanAccuracy ?? [])[0]?.value;
  const figures = found.map(({ attack, value, points }) => {
    const chart = tradeOffChart(points, {
      success: `${attack}: ${value.name}${value.unit === '' ? '' : `, ${value.unit}`}`,
      accuracy: 'accuracy',
      ...(clean === undefined ? {} : { cleanAccuracy: clean }),
    });
    const caption = `Accuracy against the success of ${attack}. Further left and higher up is better.`;
    return `<figure role="img" aria-label="${escapeHtml(caption)}">${chart}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;
  });
  const rows = found.flatMap(({ attack, points }) =>
    points.map(
      ({ bundle, accuracy, success, low, high }) =>
        `<tr><th scope="row">${escapeHtml(attack)}</th><td class="text">${escapeHtml(bundle)}</td><td>${accuracy.toFixed(3)}</td>` +
        `<td>${success.toFixed(3)}</td><td>${low.toFixed(3)} to ${high.toFixed(3)}</td></tr>`,
    ),
  );
  return `<h3>Accuracy against attackers</h3>
<div class="charts">${figures.join('\n')}</div>
<details><summary>The same as a table</summary><div class="scroll"><table>
<thead><tr><th scope="col">Attack</th><th scope="col" class="text">Bundle</th><th scope="col">Accuracy</th><th scope="col">Success</th><th scope="col">95% interval</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div></details>`;
}

function bundleSection(
  bundle: AuditedBundle,
  groups: readonly { title: string; pictures: readonly PagePicture[] }[],
): string {
  const { name, model, transform, alpha, releasedValues, hash } = bundle;
  return `<section class="bundle">
<h2>${escapeHtml(name)}</h2>
<p class="soft">${escapeHtml(model)}, ${escapeHtml(transform)} transform, α ${alpha}; ${releasedValues.toLocaleString('en')} values
leave for one input. Manifest ${hash.slice(0, 12)}.</p>
${groups.map(pictureGroup).join('\n')}
<h3>Measured</h3>
${measuredTable(bundle)}
${notRunList(bundle)}
<h3>Proven</h3>
${provenTable(bundle)}
${curveSection(bundle)}
</section>`;
}

function measuredTable({ attacks }: AuditedBundle): string {
  if (attacks.length === 0) return '<p class="soft">No attack was run.</p>';
  const rows = attacks.flatMap((attack) =>
    attack.values.map((value, i) => {
      const { mean, unit, interval, worstDecile } = value;
      const head =
        i === 0
          ? `<th scope="rowgroup" rowspan="${attack.values.length}">${escapeHtml(attack.name)}<small>${escapeHtml(attack.description)}</small></th>`
          : '';
      const last =
        i === 0
          ? `<td class="text reason" rowspan="${attack.values.length}">${badges(attack)}<small>${escapeHtml(reasons(attack))}</small></td>`
          : '';
      return `<tr>${head}<td class="text">${escapeHtml(value.name)}</td><td>${show(mean, unit)}<small>${show(interval.low, unit)} to ${show(interval.high, unit)}</small></td><td>${worstDecile === undefined ? '–' : show(worstDecile, unit)}</td><td>${baseline(attack, 'floor', i)}</td><td>${baseline(attack, 'ceiling', i)}</td><td>${attack.samples}<small>${attack.trainedOn > 0 ? `trained on ${attack.trainedOn}` : 'no training'}</small></td>${last}</tr>`;
    }),
  );
  return `<div class="scroll"><table>
<caption>What these attackers got. Under each mean its 95% interval; worst decile: the mean over the tenth of the photos they do best on.</caption>
<thead><tr><th scope="col">Attack</th><th scope="col" class="text">Value</th><th scope="col">Mean</th><th scope="col">Worst decile</th><th scope="col">Floor</th><th scope="col">Ceiling</th><th scope="col">Tried on</th><th scope="col" class="text">Verdict</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>`;
}

function notRunList({ notRun }: AuditedBundle): string {
  if (notRun.length === 0) return '';
  const items = notRun.map(({ attack, reason }) => `<li>${escapeHtml(attack)}: ${escapeHtml(reason)}</li>`);
  return `<p>Not run, which says nothing about privacy either:</p><ul>${items.join('')}</ul>`;
}

function provenTable({ proven }: AuditedBundle): string {
  if (proven.length === 0)
    return '<p class="soft">The manifest records no bound. <code>scrim certify</code> makes them.</p>';
  const rows = proven.map(
    ({ name, value, unit, assumptions }) =>
      `<tr><th scope="row">${escapeHtml(name)}</th><td>${value.toLocaleString('en')} ${escapeHtml(unit ?? '')}</td>` +
      `<td class="text"><ul>${assumptions.map((text) => `<li>${escapeHtml(text)}</li>`).join('')}</ul></td></tr>`,
  );
  return `<div class="scroll"><table>
<caption>Holds whatever an attacker does, as long as the assumptions hold.</caption>
<thead><tr><th scope="col">Bound</th><th scope="col">Value</th><th scope="col" class="text">Assumptions</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>`;
}

function pictureGroup({ title, pictures }: { title: string; pictures: readonly PagePicture[] }): string {
  const labels = [...new Set(pictures.map(({ label }) => label))];
  const ids = [...new Set(pictures.map(({ id }) => id))];
  const cell = (id: string, label: string): string => {
    const picture = pictures.find((candidate) => candidate.id === id && candidate.label === label);
    if (!picture) return '<div></div>';
    const kind = label === 'what was sent' ? ' class="tiles"' : '';
    return `<figure><img${kind} width="${picture.width}" height="${picture.height}" alt="${escapeHtml(`${id}: ${label}`)}" src="data:image/jpeg;base64,${picture.jpeg}"></figure>`;
  };
  const head = (label: string): string => `<div class="head">${escapeHtml(label)}</div>`;
  // Two kinds of small pictures lie in rows, side by side; more kinds in columns, a photo a row.
  const inRows = labels.length <= 2;
  const columns = inRows
    ? `grid-template-columns: 5rem repeat(${ids.length}, minmax(0, 1fr)); max-width: ${5 + ids.length * 9}rem`
    : `grid-template-columns: repeat(${labels.length}, minmax(0, 1fr)); max-width: ${labels.length * 15}rem`;
  const cells = inRows
    ? labels.flatMap((label) => [head(label), ...ids.map((id) => cell(id, label))])
    : [...labels.map(head), ...ids.flatMap((id) => labels.map((label) => cell(id, label)))];
  return `<h3>${escapeHtml(title)}</h3>
<div class="grid" style="${columns}">
${cells.join('\n')}
</div>`;
}

function curveSection({ attacks }: AuditedBundle): string {
  const charts = attacks.flatMap(({ name, curves }) => {
    const groups = new Map<string, (typeof curves)[number][]>();
    for (const curve of curves) {
      if (curve.points.length < 2) continue;
      const key = `${curve.xLabel} ${curve.yLabel}`;
      groups.set(key, [...(groups.get(key) ?? []), curve]);
    }
    return [...groups.values()].map((group) => {
      const caption = `${name}: ${group[0]?.yLabel ?? ''} over ${group[0]?.xLabel ?? ''}`;
      return `<figure role="img" aria-label="${escapeHtml(caption)}">${curveChart(group)}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;
    });
  });
  if (charts.length === 0) return '';
  return `<details open><summary>Curves of the attacks</summary><div class="charts">${charts.join('\n')}</div></details>`;
}

/** The strictest baseline of a kind: the best floor, the first ceiling (the same attack without noise). */
function findBaseline(
  attack: ReportedAttack,
  kind: 'floor' | 'ceiling',
  place: number,
): { readonly name: string; readonly value: AttackValue } | undefined {
  const found = attack.baselines.flatMap(({ name, kind: own, values }) => {
    const value = values[place];
    return own === kind && value ? [{ name, value }] : [];
  });
  if (kind === 'ceiling') return found[0];
  const sign = attack.values[place]?.better === 'lower' ? -1 : 1;
  return found.sort((a, b) => sign * (b.value.mean - a.value.mean))[0];
}

function baseline(attack: ReportedAttack, kind: 'floor' | 'ceiling', place = 0): string {
  const found = findBaseline(attack, kind, place);
  return found ? `${show(found.value.mean, found.value.unit)}<small>${escapeHtml(found.name)}</small>` : '–';
}

function plainBaseline(attack: ReportedAttack, kind: 'floor' | 'ceiling'): string {
  const found = findBaseline(attack, kind, 0);
  return found ? `${show(found.value.mean, found.value.unit)} (${escapeHtml(found.name)})` : '–';
}

function badges(attack: ReportedAttack): string {
  const kinds: ReportedAttack['verdict'][] = attack.live && attack.trusted ? ['measured'] : [];
  if (!attack.live) kinds.push('failed');
  if (!attack.trusted) kinds.push('too-short');
  return kinds.map(badge).join(' ');
}

function badge(verdict: ReportedAttack['verdict']): string {
  return `<span class="badge ${verdict}">${VERDICTS[verdict]}</span>`;
}

function reasons({ liveReason, trustedReason }: ReportedAttack): string {
  const sentences = [liveReason, trustedReason].filter((text) => text !== '');
  return sentences.map((text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`.replace('..', '.')).join(' ');
}

function show(value: number, unit: string): string {
  if (unit === 'dB') return `${value.toFixed(1)} dB`;
  return value.toFixed(3);
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
