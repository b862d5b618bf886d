/**
 * A confidential session in one call, for browsers: URLs of a bundle and of a server in, a session that reads photos out.
 * The same session as in Node (client/confidential-session.ts), with this browser's engine, cryptography and fetch, which
 * are closed with it.
 */
import type { Bundle } from '../bundle/bundle.js';
import type { PayloadFormat } from '../bundle/payload-format.js';
import {
  type ConfidentialSession,
  createConfidentialSession,
  type DetectionAnswer,
  type SessionCallOptions,
} from '../client/confidential-session.js';
import { createTritonClient } from '../client/http-client.js';
import { ScrimError } from '../errors.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import type { NoiserMode } from '../noise/release.js';
import type { PixelSource, ResizeMode } from '../vision/index.js';
import { fetchBundle } from './fetch-bundle.js';
import { readImage, type WebImageInput } from './images.js';
import { createWebEngine, type WebEngineOptions } from './ort-web-engine.js';
import { createWebCrypto } from './web-crypto.js';

/** What {@link openConfidentialSession} needs. */
export interface WebSessionOptions {
  /** A complete bundle, or the URL of its folder. */
  readonly bundle: Bundle | string;
  /** Hash of the only bundle that is accepted, in hexadecimal. Pin it where page and bundle come from different hands. */
  readonly expectedHash?: string;
  /** Server: http(s)://host:8000. Of another origin than the page it must allow the page's (CORS). */
  readonly url: string;
  readonly payload?: PayloadFormat;
  readonly noise?: NoiserMode;
  /** Name of the remote model. Default: what the bundle calls the one that takes `payload`. */
  readonly model?: string;
  readonly bearerToken?: string;
  /** Milliseconds a call may take. Default 60,000. */
  readonly timeoutMs?: number;
  readonly engine?: WebEngineOptions;
}

/** A session that also takes photos as files, encoded bytes or bitmaps. */
export interface WebConfidentialSession extends Omit<ConfidentialSession, 'detect'> {
  /** What runs the head here, and why not something faster. */
  readonly engineDescription: string;
  /** @throws ScrimError as `readImage` and ConfidentialSession.detect */
  detect(
    photo: WebImageInput | PixelSource,
    options?: SessionCallOptions & { readonly resize?: ResizeMode; readonly minScore?: number },
  ): Promise<DetectionAnswer>;
}

/**
 * Fetches the bundle, loads the head and compares the remote model with the bundle.
 * @throws ScrimError as fetchBundle, createWebEngine and createConfidentialSession; UNAVAILABLE if the server can't be
 * reached
 */
export async function openConfidentialSession(options: WebSessionOptions): Promise<WebConfidentialSession> {
  const { url, bearerToken, timeoutMs, payload, noise, model } = options;
  const crypto = createWebCrypto();
  const bundle = await openBundle(options, crypto);
  const client = createTritonClient({
    url,
    ...(bearerToken === undefined ? {} : { bearerToken }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const engine = await createWebEngine(options.engine);
  const closeAll = async (): Promise<void> => {
    await engine.close();
    await client.close();
  };
  try {
    const session = await createConfidentialSession({
      bundle,
      client,
      engine,
      crypto,
      ...(payload ? { payload } : {}),
      ...(noise ? { noise } : {}),
      ...(model === undefined ? {} : { model }),
    });
    await session.check();
    return {
      ...session,
      engineDescription: engine.description,
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

async function openBundle({ bundle, expectedHash }: WebSessionOptions, crypto: NoiseCrypto): Promise<Bundle> {
  if (typeof bundle === 'string') {
    return fetchBundle(bundle, { crypto, ...(expectedHash === undefined ? {} : { expectedHash }) });
  }
  if (expectedHash !== undefined && bundle.hash !== expectedHash) {
    throw new ScrimError('INVALID_BUNDLE', `the bundle has hash ${bundle.hash}, expected ${expectedHash}`);
  }
  return bundle;
}

function isPixels(photo: WebImageInput | PixelSource): photo is PixelSource {
  return 'data' in photo && 'width' in photo;
}
