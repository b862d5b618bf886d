/**
 * A confidential session in one call, for Node: bundle directory and URL in, a session that reads photos out. Engine,
 * cryptography and, unless one is given, client are this session's own and are closed with it.
 */
import type { Bundle } from '../bundle/bundle.js';
import type { PayloadFormat } from '../bundle/payload-format.js';
import {
  type ConfidentialSession,
  createConfidentialSession,
  type DetectionAnswer,
  type SessionCallOptions,
} from '../client/confidential-session.js';
import type { ReleaseLedger } from '../client/release-ledger.js';
import type { TritonClient } from '../client/triton-client.js';
import { assertArgument } from '../errors.js';
import type { NoiserMode } from '../noise/release.js';
import type { PixelSource, ResizeMode } from '../vision/index.js';
import { openBundle } from './bundle-files.js';
import type { ClientTls } from './client-tls.js';
import { type ImageInput, readImage } from './images.js';
import { createNodeCrypto } from './node-crypto.js';
import { createNodeEngine } from './ort-engine.js';
import { createTritonClient } from './triton-client.js';

interface SessionSettings {
  /** A complete bundle, or its directory. */
  readonly bundle: Bundle | string;
  readonly payload?: PayloadFormat;
  readonly noise?: NoiserMode;
  /** Name of the remote model. Default: what the bundle calls the one that takes `payload`. */
  readonly model?: string;
  /** HTTP only: tensors as bytes or as JSON. Default: as the server's extensions say. */
  readonly binary?: boolean;
  /** Counts releases by subject before they leave; every call then needs a subject. It belongs to the caller. */
  readonly ledger?: ReleaseLedger;
  /** Threads of the head. Default: all of the machine's. */
  readonly threads?: number;
}

/** What {@link openConfidentialSession} needs: a bundle, and a server's URL or a client of the caller's own. */
export type OpenSessionOptions = SessionSettings &
  (
    | {
        /** Server: http(s)://host:8000 or grpc(s)://host:8001. */
        readonly url: string;
        readonly bearerToken?: string;
        readonly tls?: ClientTls;
        /** Milliseconds a call may take. Default 60,000. */
        readonly timeoutMs?: number;
        readonly client?: never;
      }
    | {
        /** Belongs to the caller, who closes it. */
        readonly client: TritonClient;
        readonly url?: never;
      }
  );

/** A session that also takes photos as files or encoded bytes. */
export interface NodeConfidentialSession extends Omit<ConfidentialSession, 'detect'> {
  /** @throws ScrimError as `readImage` and ConfidentialSession.detect */
  detect(
    photo: ImageInput | PixelSource,
    options?: SessionCallOptions & { readonly resize?: ResizeMode; readonly minScore?: number },
  ): Promise<DetectionAnswer>;
}

/**
 * Opens the bundle, loads the head and compares the remote model with the bundle.
 * @throws ScrimError NOT_FOUND or INVALID_BUNDLE for the bundle, UNAVAILABLE if the server can't be reached
 */
export async function openConfidentialSession(options: OpenSessionOptions): Promise<NodeConfidentialSession> {
  const { threads, payload, noise, model, binary, ledger } = options;
  assertArgument(
    (options.client === undefined) !== (options.url === undefined),
    `${options.url === undefined ? 'neither url nor client is' : 'url and client are both'} given, expected one of them`,
  );
  const bundle = typeof options.bundle === 'string' ? await openBundle(options.bundle) : options.bundle;
  const client = options.client ?? clientOf(options);
  const engine = await createNodeEngine(threads === undefined ? {} : { threads });
  const closeAll = async (): Promise<void> => {
    await engine.close();
    if (client !== options.client) await client.close();
  };
  try {
    const session = await createConfidentialSession({
      bundle,
      client,
      engine,
      crypto: createNodeCrypto(),
      ...(payload ? { payload } : {}),
      ...(noise ? { noise } : {}),
      ...(ledger ? { ledger } : {}),
      ...(model === undefined ? {} : { model }),
      ...(binary === undefined ? {} : { binary }),
    });
    await session.check();
    return {
      ...session,
      detect: async (photo, detectOptions) =>
        session.detect(isPixels(photo) ? photo : await readImage(photo), detectOptions),
      close: async () => {
        await session.close();
        await closeAll();
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

function clientOf(options: Extract<OpenSessionOptions, { url: string }>): TritonClient {
  const { url, tls, bearerToken, timeoutMs } = options;
  return createTritonClient({
    url,
    ...(tls === undefined ? {} : { tls }),
    ...(bearerToken === undefined ? {} : { bearerToken }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
}

function isPixels(photo: ImageInput | PixelSource): photo is PixelSource {
  return typeof photo === 'object' && 'width' in photo;
}
