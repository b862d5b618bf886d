/** `scrim/split`: find the cuts of a model, compare them, and make head and tail. */
export { type Cut, type CutTensor, type ListCutsOptions, listCuts } from './list-cuts.js';
export { cutInPlanes, type PlanarCut } from './planes.js';
export { type SplitModel, splitAt } from './split-at.js';
export { type InputReach, type RankedCut, rankCuts, type SplitReport, splitReport } from './split-report.js';
