/** A bitmap on a canvas with boxes over it. The boxes are SVG in the photo's own pixels, so they stay sharp at any size. */

import type { JSX } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Detection } from 'scrim/vision';

/** What is shown. */
export interface PictureProps {
  readonly label: string;
  /** Undefined for an empty ground of the same shape. */
  readonly bitmap: ImageBitmap | undefined;
  readonly width: number;
  readonly height: number;
  readonly faces?: readonly Detection[];
  /** Shows scores beside the boxes. */
  readonly scores?: boolean;
  readonly pixelated?: boolean;
  /** The picture fills the shape, whatever its own. */
  readonly stretch?: boolean;
}

/** Draws it. */
export function Picture(props: PictureProps): JSX.Element {
  const { label, bitmap, width, height, faces = [], scores = false, pixelated = false, stretch = false } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = bitmap ?? { width, height };
  useLayoutEffect(() => {
    const target = canvas.current;
    if (!target || !bitmap) return;
    // The shape is there at once, the pixels in a turn of their own.
    target.width = bitmap.width;
    target.height = bitmap.height;
    const frame = requestAnimationFrame(() => target.getContext('2d')?.drawImage(bitmap, 0, 0));
    return () => cancelAnimationFrame(frame);
  }, [bitmap]);
  const frame = stretch ? { width, height } : shown;
  const text = Math.max(width, height) / 26;
  return (
    <div class="picture" role="img" aria-label={label}>
      {bitmap ? (
        <canvas ref={canvas} class={pixelated ? 'pixelated' : undefined} />
      ) : (
        <svg class="ground" viewBox={`0 0 ${frame.width} ${frame.height}`} aria-hidden="true" />
      )}
      {stretch && bitmap && <svg class="shape" viewBox={`0 0 ${width} ${height}`} aria-hidden="true" />}
      {faces.length > 0 && (
        <svg class="boxes" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
          {faces.map(({ box: [left, top, right, bottom], score }) => (
            <g key={`${left} ${top}`}>
              <rect class="halo" x={left} y={top} width={right - left} height={bottom - top} rx={text / 5} />
              <rect x={left} y={top} width={right - left} height={bottom - top} rx={text / 5} />
              {scores && (
                <text x={left + text / 5} y={bottom + text} font-size={text}>
                  {score.toFixed(2)}
                </text>
              )}
            </g>
          ))}
        </svg>
      )}
    </div>
  );
}
