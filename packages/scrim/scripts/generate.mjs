// Regenerates what is generated and committed in src/*/gen: the protobuf codecs and the WebAssembly kernels.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compilePixelKernel, embedPixelKernel } from '../assembly/compile-pixel-kernel.mjs';
import { compileReleaseKernel, embedReleaseKernel } from '../assembly/compile-release-kernel.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = (name) => fileURLToPath(new URL(`../../../node_modules/.bin/${name}`, import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), 'scrim-generate-'));
try {
  for (const [input, out] of [
    ['onnx.proto', 'src/onnx/gen'],
    ['model_config.proto', 'src/protocol/gen'],
    ['grpc_service.proto', 'src/protocol/gen'],
    ['health.proto', 'src/protocol/gen'],
  ]) {
    const template = join(temporary, `${input}.yaml`);
    writeFileSync(
      template,
      JSON.stringify({
        version: 'v2',
        plugins: [
          {
            local: bin('protoc-gen-es'),
            out: join(root, out),
            opt: ['target=ts', 'import_extension=js'],
          },
        ],
      }),
    );
    execFileSync(bin('buf'), ['generate', '--template', template, '--path', join('proto', input), 'proto'], {
      cwd: root,
      stdio: 'inherit',
    });
  }
} finally {
  rmSync(temporary, { recursive: true, force: true });
}

writeFileSync(join(root, 'src/noise/gen/release-kernel.ts'), embedReleaseKernel(await compileReleaseKernel()));
writeFileSync(join(root, 'src/vision/gen/pixel-kernel.ts'), embedPixelKernel(await compilePixelKernel()));
