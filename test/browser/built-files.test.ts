/** The files of the built page: nothing of Node in them, no other origin, nothing that the page's policy forbids. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';
import { expect, it } from 'vitest';

const PAGE = fileURLToPath(new URL('../../packages/studio/dist', import.meta.url));
const NODE_MODULE =
  /(?:from|import|require)\s*\(?\s*["'](?:node:[a-z_/]+|fs|path|crypto|os|worker_threads|buffer|module|url)["']/;

/** onnxruntime-web's own script keeps a branch for Node, which a browser never takes. */
const isRuntime = (name: string): boolean => /^ort\./.test(name);

it('the page has no part of Node and names no other origin', async () => {
  const files = await readdir(PAGE, { recursive: true });
  const scripts = files.filter((name) => name.endsWith('.js'));
  expect(scripts.length).toBeGreaterThan(3);
  for (const name of scripts) {
    const base = name.split('/').at(-1) as string;
    if (isRuntime(base)) continue;
    const text = await readFile(join(PAGE, name), 'utf8');
    expect(text, name).not.toMatch(NODE_MODULE);
    expect(text, name).not.toMatch(/\beval\(|new Function\(/);
  }
  const page = await readFile(join(PAGE, 'index.html'), 'utf8');
  expect(page).not.toMatch(/https?:\/\//);
  expect(page).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=/);
});

it('what a page imports of scrim has no part of Node', async () => {
  const result = await build({
    logLevel: 'silent',
    configFile: false,
    build: {
      write: false,
      minify: false,
      target: 'es2022',
      lib: { entry: fileURLToPath(new URL('whole-client.js', import.meta.url)), formats: ['es'] },
      rolldownOptions: { external: [/^onnxruntime-web/] },
    },
    worker: { format: 'es' },
  });
  const outputs = (Array.isArray(result) ? result : [result]).flatMap((part) => ('output' in part ? part.output : []));
  const chunks = outputs.flatMap((chunk) => (chunk.type === 'chunk' ? [chunk] : []));
  expect(chunks.length).toBeGreaterThan(0);
  for (const chunk of chunks) {
    expect(chunk.code, chunk.fileName).not.toMatch(NODE_MODULE);
    expect(chunk.code, chunk.fileName).not.toMatch(/node:[a-z]+['"]/);
  }
});
