/** Tensors that a model keeps in files beside it: read from the model's own folder and from nowhere else. */
import { readFileSync, realpathSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { ScrimError } from '../errors.js';
import { attachExternalData, hasExternalData, type ModelProto } from '../onnx/index.js';

/**
 * Reads the external data of `model`, in place.
 * @throws ScrimError INVALID_MODEL for a file outside `folder` (also through a link) or a range outside its file,
 * NOT_FOUND for a missing file.
 */
export function attachExternalFiles(model: ModelProto, folder: string): void {
  if (!hasExternalData(model)) return;
  const root = realpathSync(folder === '' ? '.' : folder);
  attachExternalData(model, (location) => {
    let path: string;
    try {
      path = realpathSync(join(root, location));
    } catch (error) {
      throw new ScrimError('NOT_FOUND', `the external data '${location}' of the model is missing`, { cause: error });
    }
    const inside = relative(root, path);
    if (inside === '..' || inside.startsWith(`..${sep}`)) {
      throw new ScrimError('INVALID_MODEL', `the external data '${location}' leads out of the model's folder`);
    }
    return readFileSync(path);
  });
}
