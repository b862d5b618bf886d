// The page of bench/browser.mjs: passes what it is asked on to the worker, as an application would.
const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
const waiting = [];
worker.onmessage = ({ data }) => {
  if (data.description !== undefined) globalThis.description = data.description;
  else if (data.error !== undefined) waiting.shift()?.reject(new Error(data.error));
  else waiting.shift()?.resolve(data);
};
worker.onerror = (event) => {
  throw new Error(event.message);
};
const ask = (message) =>
  new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    worker.postMessage(message);
  });
const photo = await (await fetch('./photo.jpg')).blob();

/** The photo of the bench, file to boxes. */
globalThis.detect = () => ask({ kind: 'detect', photo });
/** Milliseconds of each stage. */
globalThis.stages = () => ask({ kind: 'stages', photo });
/** Any photo in base64, without noise. */
globalThis.clean = async (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return (await ask({ kind: 'clean', photo: new Blob([bytes]) })).faces;
};
worker.postMessage({ kind: 'start' });
