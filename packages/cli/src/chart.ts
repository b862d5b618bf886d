/** Accuracy against alpha as SVG (echarts, rendered without a browser) and PNG (resvg with DejaVu, so no system fonts). */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Resvg } from '@resvg/resvg-js';
import { LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

/** One point of the curve. */
export interface SweepPoint {
  readonly alpha: number;
  readonly meanAp: number;
  readonly sd: number;
  /** Upper bound on the information of one release, in nats. */
  readonly nats: number;
}

use([LineChart, GridComponent, LegendComponent, MarkLineComponent, TitleComponent, SVGRenderer]);

/** Draws average precision and nats against alpha. */
export function sweepChart(points: readonly SweepPoint[], cleanAp: number, subtitle: string): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: 820, height: 460 });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: { fontFamily: 'DejaVu Sans, sans-serif' },
    title: { text: 'Accuracy and information against alpha', subtext: subtitle, left: 'center' },
    legend: { bottom: 0, data: ['average precision', 'nats per photo (bound)'] },
    grid: { left: 70, right: 90, top: 80, bottom: 70 },
    xAxis: { type: 'value', name: 'alpha', nameLocation: 'middle', nameGap: 28, min: 0, max: 1 },
    yAxis: [
      { type: 'value', name: 'AP at IoU 0.5', min: 0, max: 1 },
      { type: 'value', name: 'nats', min: 0, splitLine: { show: false } },
    ],
    series: [
      {
        name: 'average precision',
        type: 'line',
        data: points.map(({ alpha, meanAp }) => [alpha, Number(meanAp.toFixed(4))]),
        symbolSize: 7,
        itemStyle: { color: '#1f5fa8' },
        markLine: {
          symbol: 'none',
          silent: true,
          lineStyle: { type: 'dashed', color: '#1f5fa8' },
          label: { formatter: `clean ${cleanAp.toFixed(3)}`, position: 'insideEndTop' },
          data: [{ yAxis: cleanAp }],
        },
      },
      {
        name: 'nats per photo (bound)',
        type: 'line',
        yAxisIndex: 1,
        data: points.map(({ alpha, nats }) => [alpha, Math.round(nats)]),
        symbol: 'rect',
        symbolSize: 6,
        lineStyle: { type: 'dotted' },
        itemStyle: { color: '#b4552d' },
      },
    ],
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** Renders an SVG as PNG, twice its size. */
export function svgToPng(svg: string): Uint8Array {
  const fonts = join(dirname(createRequire(import.meta.url).resolve('dejavu-fonts-ttf/package.json')), 'ttf');
  const image = new Resvg(svg, {
    fitTo: { mode: 'zoom', value: 2 },
    font: {
      loadSystemFonts: false,
      fontFiles: ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((file) => join(fonts, file)),
      defaultFontFamily: 'DejaVu Sans',
    },
  });
  return image.render().asPng();
}
