/**
 * The diagonal Gaussian bound on what one release tells about its input.
 *
 * I(x; z′) ≤ Σ_i ½ ln(1 + m_i² λ_i / σ_i²) in nats, λ_i the clean variance of the element (Xiao & Devadas, PAC Privacy,
 * 2023, for the diagonal case). Rounding to the grid and clamping come after the noise and can only lower it. The
 * number rests on λ as estimated from the fitting photos; certify/ puts confidence limits on it.
 */
import type { DiagonalParameters } from './diagonal.js';

/** Bound of one release in nats per spatial position; times H·W it is the bound of one photo. */
export function natsPerPosition(parameters: DiagonalParameters, releases = 1): number {
  const perChannel = parameters.gain.length / (parameters.shape[0] ?? 1);
  let nats = 0;
  for (const value of natsPerElement(parameters, releases)) nats += value;
  return nats / perChannel;
}

/** Bound by element (or channel): ½ ln(1 + n m²λ/σ²) for n fresh releases of the same input; 0 where suppressed. */
export function natsPerElement(parameters: DiagonalParameters, releases = 1): Float64Array {
  const { gain, sigma, variance, shape } = parameters;
  const perChannel = gain.length / (shape[0] ?? 1);
  return Float64Array.from(gain, (g, i) => {
    if (g === 0) return 0;
    const snr = (g * g * (variance[Math.floor(i / perChannel)] ?? 0)) / (sigma[i] ?? 0) ** 2;
    return 0.5 * Math.log1p(releases * snr);
  });
}
