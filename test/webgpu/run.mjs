// Runs the tests of onnxruntime's WebGPU provider on SwiftShader, the Vulkan in software that comes with Chromium (Debian:
// apt-get install chromium), which takes minutes since every kernel is compiled for the processor; on the driver that
// VK_DRIVER_FILES names, such as a GPU's, where it is set. Skips where there is neither.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import ort from 'onnxruntime-node';

const CHROMIUM = '/usr/lib/chromium';
const SOFTWARE = `${CHROMIUM}/vk_swiftshader_icd.json`;
const env = { ...process.env };

function skip(why) {
  process.stdout.write(`skipped: ${why}\n`);
  process.exit(0);
}

if (!ort.listSupportedBackends().some(({ name }) => name === 'webgpu')) {
  skip(`onnxruntime-node has no WebGPU provider on ${process.platform} ${process.arch}`);
}
if (!env.VK_DRIVER_FILES) {
  if (!existsSync(SOFTWARE)) skip(`there is no ${SOFTWARE}, and VK_DRIVER_FILES names no driver`);
  env.VK_DRIVER_FILES = SOFTWARE;
  // Chromium's own loader, where the system has none.
  env.LD_LIBRARY_PATH = [env.LD_LIBRARY_PATH, CHROMIUM].filter(Boolean).join(':');
  env.XDG_RUNTIME_DIR ??= '/tmp';
}
const { status } = spawnSync('npx', ['vitest', 'run', '--config', 'test/webgpu/vitest.config.ts'], {
  stdio: 'inherit',
  env,
});
process.exit(status ?? 1);
