/**
 * The arrows of ARCHITECTURE.md: which room may import which. Anything not listed is an error.
 * Every room may import errors.ts and tensor.ts; files of one room import each other freely.
 */
const room = (name) => `^packages/scrim/src/${name}/`;
const base = '^packages/scrim/src/(errors|tensor)\\.ts$';

/** Rooms (and parts of rooms) a room may import, besides itself, errors and tensor. */
const arrows = {
  onnx: [],
  protocol: [],
  metrics: [],
  engine: [],
  autodiff: ['onnx'],
  split: ['onnx'],
  noise: [],
  bundle: ['onnx', 'noise'],
  vision: ['onnx', 'engine'],
  client: ['protocol', 'engine', 'bundle', 'noise', 'vision'],
  server: ['protocol', 'engine', 'onnx'],
  audit: ['onnx', 'autodiff', 'engine', 'noise', 'bundle', 'metrics', 'vision'],
  certify: ['noise', 'bundle', 'onnx', 'autodiff', 'engine', 'metrics'],
};

/** npm packages a room may import. The rest may import none. */
const packages = {
  onnx: ['@bufbuild/protobuf'],
  protocol: ['@bufbuild/protobuf', 'fflate'],
  engine: ['onnxruntime-common'],
  bundle: ['valibot'],
  vision: ['fflate'],
};

const noTests = '\\.test\\.ts$';
const rules = [];
for (const [name, allowed] of Object.entries(arrows)) {
  const from = {
    path: room(name),
    pathNot: name === 'noise' ? ['^packages/scrim/src/noise/(fit/|index\\.ts$)', noTests] : noTests,
  };
  rules.push({
    name: `${name}-imports-only-its-arrows`,
    severity: 'error',
    from,
    to: { path: '^packages/', pathNot: [base, room(name), ...allowed.map(room)] },
  });
  rules.push({
    name: `${name}-imports-only-its-packages`,
    severity: 'error',
    from,
    to: {
      path: 'node_modules/',
      pathNot: (packages[name] ?? []).map((dependency) => `node_modules/${dependency}/`),
    },
  });
}
rules.push({
  name: 'noise-fit-imports-only-its-arrows',
  severity: 'error',
  from: { path: '^packages/scrim/src/noise/fit/', pathNot: noTests },
  to: { path: '^packages/', pathNot: [base, room('noise'), room('onnx'), room('autodiff'), room('engine')] },
});
rules.push({
  name: 'only-node-imports-node-builtins',
  severity: 'error',
  from: { path: '^packages/scrim/src/', pathNot: [room('node'), noTests] },
  to: { dependencyTypes: ['core'] },
});
rules.push({
  name: 'node-and-web-stay-apart',
  severity: 'error',
  from: { path: room('(node|web)'), pathNot: noTests },
  to: { path: room('(node|web)'), pathNot: '^packages/scrim/src/$1/' },
});
rules.push({
  name: 'rooms-do-not-import-node-or-web',
  severity: 'error',
  from: { path: '^packages/scrim/src/', pathNot: [room('(node|web)'), noTests] },
  to: { path: room('(node|web)') },
});
rules.push({
  name: 'only-public-subpaths-of-scrim',
  severity: 'error',
  from: { path: '^packages/(cli|studio|dataops)/' },
  to: {
    path: '^packages/scrim/(src|dist)/',
    pathNot: ['^packages/scrim/(src|dist)/index\\.', '^packages/scrim/(src|dist)/[a-z]+/index\\.'],
  },
});
rules.push({
  name: 'kubernetes-only-in-dataops',
  severity: 'error',
  from: { pathNot: '^packages/dataops/' },
  to: { path: 'node_modules/@kubernetes/client-node/' },
});
rules.push({ name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } });

module.exports = {
  forbidden: rules,
  options: {
    doNotFollow: { path: ['node_modules', 'packages/[a-z]+/dist'] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['types', 'import', 'default'] },
  },
};
