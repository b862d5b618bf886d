// Regenerates what is generated and committed: the protobuf codecs in src/*/gen.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

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
