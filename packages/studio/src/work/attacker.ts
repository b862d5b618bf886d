/**
 * What an attacker makes of a release, from what the audit left in the bundle: a trained decoder if there is one
 * (audit/decoder.onnx, release in, picture [1, 3, height, width] in [0, 1] out; `scrim audit --ship-decoder` puts it
 * there), else the linear least-squares guess.
 */
import { type Bundle, decodeSafetensors, type Engine, expectType, ScrimError, type Tensor } from 'scrim';
import { type LinearReconstruction, reconstruct } from 'scrim/audit';
import { Graph } from 'scrim/onnx';
import type { RgbImage } from 'scrim/vision';
import { fromUnitTensor } from './pictures.js';

const DECODER_PATH = 'audit/decoder.onnx';
/** Metadata of a decoder (cli's ship-decoder.ts). */
const TRAINING_KEY = 'scrim.training';
const LINEAR_PATH = 'audit/reconstruction.safetensors';

/** A loaded attacker. */
export interface Attacker {
  readonly kind: 'linear' | 'decoder';
  /** How a decoder was trained, where it says so. */
  readonly training?: string | undefined;
  /**
   * @param activation [1, C, H, W] as the remote half sees it
   * @returns undefined if the decoder was trained on inputs of another size
   */
  rebuild(activation: Tensor<'float32'>): Promise<RgbImage | undefined>;
}

/** Which attacker a bundle brings. */
export function attackerKind(bundle: Bundle): Attacker['kind'] | 'none' {
  if (DECODER_PATH in bundle.manifest.files) return 'decoder';
  return LINEAR_PATH in bundle.manifest.files ? 'linear' : 'none';
}

/** Loads it. @throws ScrimError INVALID_BUNDLE for a file that holds something else; as the engine */
export async function loadAttacker(bundle: Bundle, engine: Engine): Promise<Attacker | undefined> {
  const kind = attackerKind(bundle);
  if (kind === 'none') return undefined;
  if (kind === 'decoder') {
    const bytes = await bundle.read(DECODER_PATH);
    const session = await engine.load(bytes);
    const [input, output] = [session.inputs[0]?.name ?? '', session.outputs[0]?.name ?? ''];
    return {
      kind,
      training: Graph.decode(bytes).metadata.get(TRAINING_KEY),
      rebuild: async (activation) => {
        const declared = session.inputs[0]?.shape ?? [];
        const differs = (size: number | string, axis: number): boolean =>
          typeof size === 'number' && size !== activation.shape[axis];
        if (declared.some(differs)) return undefined;
        const outputs = await session.run({ [input]: activation });
        return fromUnitTensor(expectType(outputs[output] as Tensor, 'float32', 'the picture of the decoder'));
      },
    };
  }
  const linear = decodeLinear(await bundle.read(LINEAR_PATH));
  return { kind, rebuild: async (activation) => reconstruct(linear, activation) };
}

function decodeLinear(bytes: Uint8Array): LinearReconstruction {
  const { tensors, metadata } = decodeSafetensors(bytes);
  const weights = tensors.get('weights');
  const patch = Number(metadata.patch);
  if (metadata.format !== 'scrim-linear-reconstruction' || !weights || !Number.isInteger(patch)) {
    throw new ScrimError('INVALID_BUNDLE', `'${LINEAR_PATH}' holds no linear reconstruction`);
  }
  return { patch, weights: expectType(weights, 'float32', 'the weights of the reconstruction') };
}
