// Runs the tests of onnxruntime's WebGPU provider: on the GPU that Vulkan finds, else on SwiftShader, the Vulkan in software
// that comes with Chromium (Debian: apt-get install chromium). Slow there: every kernel is compiled for the processor.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const CHROMIUM = '/usr/lib/chromium';
const env = { ...process.env };
if (!env.VK_DRIVER_FILES && existsSync(`${CHROMIUM}/vk_swiftshader_icd.json`)) {
  env.VK_DRIVER_FILES = `${CHROMIUM}/vk_swiftshader_icd.json`;
  // Chromium's own loader, where the system has none.
  env.LD_LIBRARY_PATH = [env.LD_LIBRARY_PATH, CHROMIUM].filter(Boolean).join(':');
  env.XDG_RUNTIME_DIR ??= '/tmp';
}
const { status } = spawnSync('npx', ['vitest', 'run', '--config', 'test/webgpu/vitest.config.ts'], {
  stdio: 'inherit',
  env,
});
process.exit(status ?? 1);
