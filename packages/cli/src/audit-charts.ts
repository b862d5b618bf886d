/**
 * Charts of the audit as SVG: accuracy against what an attacker got, and curves of the attacks. Text and axes take the
 * page's colour, so that one drawing serves a light page, a dark one and paper.
 */

import { LineChart, ScatterChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import type { AttackCurve, TradeOff } from 'scrim/audit';

use([LineChart, ScatterChart, GridComponent, LegendComponent, MarkLineComponent, SVGRenderer]);

/** Stands for the page's own colours until the drawing is done; no series has them. */
const INK = '#010203';
const LINE = '#020304';
/** Readable on white and on dark grey; told apart by shape and dash too. */
const COLOURS = ['#2f7fc1', '#d1661f', '#3f9a5a', '#a35fc0', '#9a7b1f'];
const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond', 'pin'];
const DASHES = ['solid', 'dashed', 'dotted', 'solid', 'dashed'] as const;
const FONT = { fontFamily: 'system-ui, sans-serif', fontSize: 12, color: INK };

/** Accuracy (up) against attacker success (right), one line for each kind of transform. */
export function tradeOffChart(
  points: readonly TradeOff[],
  labels: { readonly success: string; readonly accuracy: string; readonly cleanAccuracy?: number },
): string {
  const kinds = [...new Set(points.map(({ transform }) => transform))];
  return render(500, 330, {
    legend: { bottom: 0, textStyle: FONT, data: kinds },
    grid: { left: 64, right: 30, top: 24, bottom: 84 },
    xAxis: { ...axis(labels.success, 32), ...range(points.map(({ success }) => success)) },
    yAxis: {
      ...axis(labels.accuracy, 44),
      ...range([...points.map(({ accuracy }) => accuracy), labels.cleanAccuracy ?? []].flat()),
    },
    series: kinds.map((kind, i) => ({
      name: kind,
      type: 'line',
      symbol: SYMBOLS[i % SYMBOLS.length],
      symbolSize: 10,
      itemStyle: { color: COLOURS[i % COLOURS.length] },
      lineStyle: { type: DASHES[i % DASHES.length] },
      label: { show: true, position: 'top', ...FONT, formatter: '{@[2]}' },
      data: points
        .filter(({ transform }) => transform === kind)
        .sort((a, b) => a.success - b.success)
        .map(({ success, accuracy, alpha, verdict }) => [
          round(success),
          round(accuracy),
          `α ${alpha}${verdict === 'measured' ? '' : verdict === 'failed' ? ' (failed)' : ' (too short)'}`,
        ]),
      ...(labels.cleanAccuracy === undefined || i > 0
        ? {}
        : {
            markLine: {
              symbol: 'none',
              silent: true,
              lineStyle: { type: 'dashed', color: LINE },
              label: {
                ...FONT,
                formatter: `without noise ${labels.cleanAccuracy.toFixed(3)}`,
                position: 'insideEndTop',
              },
              data: [{ yAxis: labels.cleanAccuracy }],
            },
          }),
    })),
  });
}

/** Curves that share their axes, such as a loss over the steps. */
export function curveChart(curves: readonly AttackCurve[]): string {
  const [first] = curves;
  return render(520, 300, {
    legend: { bottom: 0, textStyle: FONT, data: curves.map(({ name }) => name) },
    grid: { left: 60, right: 24, top: 20, bottom: 74 },
    xAxis: { ...axis(first?.xLabel ?? '', 28), scale: true },
    yAxis: { ...axis(first?.yLabel ?? '', 42), scale: true },
    series: curves.map(({ name, points }, i) => ({
      name,
      type: 'line',
      symbol: SYMBOLS[i % SYMBOLS.length],
      symbolSize: points.length > 30 ? 0 : 5,
      itemStyle: { color: COLOURS[i % COLOURS.length] },
      lineStyle: { type: DASHES[i % DASHES.length] },
      data: points.map(({ x, y }) => [x, round(y)]),
    })),
  });
}

function axis(name: string, gap: number): Record<string, unknown> {
  return {
    type: 'value',
    name,
    nameLocation: 'middle',
    nameGap: gap,
    nameTextStyle: FONT,
    axisLabel: { ...FONT, hideOverlap: true },
    axisLine: { lineStyle: { color: LINE } },
    axisTick: { lineStyle: { color: LINE } },
    splitLine: { lineStyle: { color: LINE, opacity: 0.18 } },
  };
}

/** A range in tenths of its power of ten around values, with room for the labels. */
function range(values: readonly number[]): { min: number; max: number } {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.15, Math.abs(high) * 0.05, 0.02);
  const unit = 10 ** Math.floor(Math.log10(high - low + 2 * room)) / 2;
  const tidy = (value: number): number => Number(value.toPrecision(6));
  const least = low >= 0 ? 0 : Number.NEGATIVE_INFINITY;
  return {
    min: tidy(Math.max(least, Math.floor((low - room) / unit) * unit)),
    max: tidy(Math.ceil((high + room) / unit) * unit),
  };
}

function render(width: number, height: number, option: Record<string, unknown>): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({ animation: false, backgroundColor: 'transparent', textStyle: FONT, ...option });
  const svg = chart.renderToSVGString();
  chart.dispose();
  // Its style sheet only says what happens under a pointer.
  const still = svg.replace(/<style[\s\S]*?<\/style>/g, '');
  return still.replaceAll(INK, 'currentColor').replaceAll(LINE, 'currentColor');
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
