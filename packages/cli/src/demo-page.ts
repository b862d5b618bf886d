/** The demo's page: one self-contained HTML file, pictures and chart inside, no script, no request to anywhere. */

import { encodeJpeg } from 'scrim/node';
import type { RgbImage } from 'scrim/vision';
import type { FacePictures } from './face-pictures.js';

/** One photo of the page. */
export interface DemoPhoto {
  readonly name: string;
  readonly pictures: FacePictures;
  readonly cleanFaces: number;
  readonly noisyFaces: number;
}

/** What the page shows. */
export interface DemoContent {
  readonly title: string;
  readonly summary: string;
  readonly alpha: number;
  readonly sentBytes: string;
  readonly photos: readonly DemoPhoto[];
  readonly tableHeadings: readonly string[];
  readonly tableRows: readonly (readonly string[])[];
  readonly tableNote: string;
  readonly chartSvg?: string;
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #5b6470; --line: #d9dde3; --ground: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3abb6; --line: #343a42; --ground: #15181c; } }
body { margin: 0 auto; max-width: 1100px; padding: 2rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: .8rem; margin: 0 0 1.6rem; }
@media (max-width: 760px) { .row { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; } img { width: 100%; border-radius: 4px; display: block; image-rendering: auto; }
img.tiles { image-rendering: pixelated; } figcaption { font-size: .85rem; color: var(--soft); margin-top: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--line); text-align: right; } th:first-child, td:first-child { text-align: left; }
.chart { background: #fff; border-radius: 6px; margin-top: 1rem; } .chart svg { max-width: 100%; height: auto; }
`;

/** Renders the page. */
export async function renderDemoPage(content: DemoContent): Promise<string> {
  const rows: string[] = [];
  for (const photo of content.photos) rows.push(await renderPhoto(photo));
  const table = [
    `<tr>${content.tableHeadings.map((heading) => `<th scope="col">${escapeHtml(heading)}</th>`).join('')}</tr>`,
    ...content.tableRows.map((row) => `<tr>${row.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('')}</tr>`),
  ].join('\n');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escapeHtml(content.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(content.title)}</h1>
<p>${escapeHtml(content.summary)}</p>
<p class="soft">Only the second column left the trusted side, ${escapeHtml(content.sentBytes)} a photo. The third is the best
linear guess at the photo from it: a trained decoder sees more, and diagonal noise alone does not make people
unrecognisable to one.</p>
<h2>Photos at alpha ${content.alpha}</h2>
${rows.join('\n')}
<h2>Accuracy against alpha</h2>
<table>
${table}
</table>
<p class="soft">${escapeHtml(content.tableNote)}</p>
${content.chartSvg ? `<div class="chart">${content.chartSvg}</div>` : ''}
</body>
</html>
`;
}

async function renderPhoto({ name, pictures, cleanFaces, noisyFaces }: DemoPhoto): Promise<string> {
  const { clean, tiles, reconstruction, noisy } = pictures;
  const figures = [
    await figure(clean, `${name}: ${count(cleanFaces)} on the clean path`),
    await figure(tiles, 'what left: the noisy activation', 'tiles'),
    ...(reconstruction ? [await figure(reconstruction, 'a linear guess at the photo')] : []),
    await figure(noisy, `${count(noisyFaces)} answered by the untrusted tail`),
  ];
  return `<div class="row">\n${figures.join('\n')}\n</div>`;
}

async function figure(image: RgbImage, caption: string, kind = ''): Promise<string> {
  const jpeg = Buffer.from(await encodeJpeg(image, 82)).toString('base64');
  const text = escapeHtml(caption);
  return (
    `<figure><img${kind === '' ? '' : ` class="${kind}"`} alt="${text}" src="data:image/jpeg;base64,${jpeg}">` +
    `<figcaption>${text}</figcaption></figure>`
  );
}

function count(faces: number): string {
  return faces === 1 ? '1 face' : `${faces} faces`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
