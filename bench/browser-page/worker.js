// The worker of bench/browser.mjs: a session as in docs/browser.md, and the clean model for the comparison of accuracy.
import { createDetectionDecoder } from 'scrim/vision';
import { createInputReader, createWebEngine, fetchBundle, openConfidentialSession } from 'scrim/web';

const BUNDLE = '/bundles/faceboxes-tfjs/alpha-0.80';
const MODEL = 'faces_faceboxes_tfjs_alpha_0_80';

const ready = (async () => {
  const bundle = await fetchBundle(BUNDLE);
  const session = await openConfidentialSession({
    bundle,
    url: location.origin,
    model: MODEL,
    engine: { worker: false, executionProvider: 'wasm' },
  });
  const engine = await createWebEngine({ worker: false, executionProvider: 'wasm' });
  const { remote, model } = bundle.manifest;
  const head = await engine.load(await bundle.read('trusted/head.onnx'));
  const tail = await engine.load(await bundle.read(`remote/${remote.base}/1/model.onnx`));
  const reader = createInputReader(model.detector);
  const decoder = createDetectionDecoder(model.detector);
  const clean = async (photo) => {
    const { tensor, plan } = await reader.read(photo);
    const activation = await head.run({ [model.input]: tensor });
    const answer = await tail.run({ [remote.input]: Object.values(activation)[0] });
    const named = Object.fromEntries(remote.outputs.map((output) => [output.model, answer[output.remote]]));
    const { offsets, scores } = model.detector.outputs;
    return decoder.decode(named[offsets], named[scores], [plan])[0];
  };
  const stages = async (photo) => {
    const started = performance.now();
    const { tensor } = await reader.read(photo);
    const read = performance.now();
    let timing = {};
    const release = await session.trusted.release(tensor, {
      transfer: true,
      now: () => performance.now(),
      onTiming: (found) => {
        timing = found;
      },
    });
    const released = performance.now();
    await session.send(release);
    return {
      read: read - started,
      head: timing.headMs,
      noise: timing.transformMs,
      remote: performance.now() - released,
    };
  };
  return { session, clean, stages };
})();

globalThis.onmessage = async ({ data }) => {
  try {
    const { session, clean, stages } = await ready;
    if (data.kind === 'start') {
      postMessage({ description: session.engineDescription });
    } else if (data.kind === 'clean') {
      postMessage({ faces: await clean(data.photo) });
    } else if (data.kind === 'stages') {
      postMessage(await stages(data.photo));
    } else {
      const started = performance.now();
      const { detections } = await session.detect(data.photo);
      postMessage({ ms: performance.now() - started, faces: detections.length });
    }
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
