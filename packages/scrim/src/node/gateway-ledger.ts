/**
 * The gateway's side of the ledger: whose release it is, what it costs, and which bundle the budget still allows.
 *
 * A request is charged as a whole before the head runs, at the bound that follows from its input's shape. Where a
 * subject's nats do not suffice, the next bundle of a list is tried: with rising alpha, less leaves as the budget runs
 * out. A request that fails afterwards stays charged: the error is on the careful side.
 */
import { type Bundle, HEAD_PATH } from '../bundle/bundle.js';
import type { ConfidentialSession } from '../client/confidential-session.js';
import { isOutOfNats, type ReleaseLedger, releaseNats } from '../client/release-ledger.js';
import { ScrimError } from '../errors.js';
import { Graph, inferShapes } from '../onnx/index.js';
import type { InferRequest } from '../protocol/index.js';

/** How a gateway keeps a ledger. */
export interface GatewayLedgerOptions {
  readonly ledger: ReleaseLedger;
  /**
   * HTTP header that names the subject of a request. Where a request has no such header, as over gRPC, its parameter of
   * that name does; without either it is refused.
   */
  readonly subjectHeader: string;
  /** Bundles of the same model to go on with when nats run out, least told last, each with its session. */
  readonly raiseTo?: readonly { readonly bundle: Bundle; readonly session: ConfidentialSession }[];
}

/** Charges requests of one gateway. */
export interface GatewayBudget {
  /**
   * Charges the samples of an input tensor to the subject of `request`.
   * @param header what the HTTP request says, if it was one
   * @param shape [N, …] of the input tensor
   * @returns 0 for the gateway's own bundle, i for the i-th of `raiseTo`
   * @throws ScrimError INVALID_ARGUMENT without a subject; PERMISSION_DENIED if the budget does not allow it; UNAVAILABLE
   * if the ledger can't be written
   */
  charge(header: string | null | undefined, request: InferRequest, shape: readonly number[]): Promise<number>;
}

/** Makes the budget. @throws ScrimError INVALID_BUNDLE if the head can't be read */
export async function createGatewayBudget(bundle: Bundle, options: GatewayLedgerOptions): Promise<GatewayBudget> {
  const { ledger, subjectHeader, raiseTo = [] } = options;
  const bundles = [bundle, ...raiseTo.map((rung) => rung.bundle)];
  const heads: { readonly graph: Graph; readonly input: string; readonly cut: string }[] = [];
  for (const { manifest, read } of bundles) {
    const graph = Graph.decode(await read(HEAD_PATH));
    heads.push({ graph, input: manifest.model.input, cut: manifest.cut.tensors[0]?.name ?? '' });
  }
  const known = new Map<string, number>();
  const positionsOf = (rung: number, shape: readonly number[]): number => {
    const key = `${rung}:${shape.join()}`;
    let positions = known.get(key);
    if (positions === undefined) {
      const { graph, input, cut } = heads[rung] as (typeof heads)[number];
      positions = positionsAt(graph, input, cut, shape);
      if (known.size >= MAX_SHAPES) known.clear();
      known.set(key, positions);
    }
    return positions;
  };
  const parameter = subjectHeader.toLowerCase();
  return {
    charge: async (header, request, [samples = 0, ...rest]) => {
      const named = Object.entries(request.parameters ?? {}).find(([name]) => name.toLowerCase() === parameter)?.[1];
      const subject = header ?? (typeof named === 'string' ? named : undefined);
      if (!subject) {
        throw new ScrimError('INVALID_ARGUMENT', `the request has no header or parameter '${subjectHeader}'`);
      }
      for (const [rung, { hash, manifest }] of bundles.entries()) {
        const nats = releaseNats(bundles[rung] as Bundle, positionsOf(rung, [1, ...rest]));
        const charge = { subject, nats, bundleHash: hash, alpha: manifest.alpha };
        try {
          await ledger.charge(new Array<typeof charge>(samples).fill(charge));
          return rung;
        } catch (error) {
          if (rung === bundles.length - 1 || !isOutOfNats(error)) throw asRefusal(error);
        }
      }
      throw new ScrimError('INTERNAL', 'no bundle was tried');
    },
  };
}

const MAX_SHAPES = 1000;

/** To clients a spent budget is a policy's No: RESOURCE_EXHAUSTED would tell them to try again soon. */
function asRefusal(error: unknown): unknown {
  if (!(error instanceof ScrimError) || error.code !== 'RESOURCE_EXHAUSTED') return error;
  return new ScrimError('PERMISSION_DENIED', error.message, { details: error.details, cause: error });
}

function positionsAt(graph: Graph, input: string, cut: string, shape: readonly number[]): number {
  const found = inferShapes(graph, { inputShapes: { [input]: shape } }).get(cut)?.shape;
  if (!found?.every((dimension) => typeof dimension === 'number')) {
    throw new ScrimError(
      'UNSUPPORTED',
      `what a release of an input of [${shape.join(', ')}] tells can't be worked out`,
    );
  }
  return (found as readonly number[]).slice(2).reduce((product, dimension) => product * dimension, 1);
}
