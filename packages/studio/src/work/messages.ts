/** What the page and its worker say to each other: plain data, with pictures and photos moved, not copied. */
import type { Figure, ScrimErrorCode } from 'scrim';
import type { Detection } from 'scrim/vision';
import type { CatalogueBundle } from '../catalogue.js';

/** 'clean' runs the whole model in the tab and sends nothing; else a bundle. */
export type Setting = 'clean' | CatalogueBundle;

/** A photo to be worked on: a file, or a frame that is given up. */
export type Photo = Blob | ImageBitmap;

/** From the page. */
export type Order =
  | { readonly kind: 'open'; readonly id: number; readonly photo: Photo }
  | {
      readonly kind: 'run';
      readonly id: number;
      readonly setting: Setting;
      /** The bundle whose model and attacker stand in where nothing is sent. */
      readonly reference: CatalogueBundle;
      readonly server: string;
      /** True for frames of a camera: the clean model is not run beside, for the sake of the rate. */
      readonly live: boolean;
    }
  | { readonly kind: 'inspect'; readonly id: number; readonly bundle: CatalogueBundle }
  | { readonly kind: 'cancel'; readonly id: number };

/** From the worker. */
export type Report =
  | { readonly kind: 'progress'; readonly id: number; readonly text: string }
  | { readonly kind: 'done'; readonly id: number; readonly result: OpenedPhoto | Run | Inspection }
  | { readonly kind: 'failed'; readonly id: number; readonly error: Failure };

/** An error as it crosses threads. */
export interface Failure {
  readonly code: ScrimErrorCode;
  readonly message: string;
}

/** A photo that was decoded. The worker keeps the pixels; the page gets a picture to show. */
export interface OpenedPhoto {
  readonly width: number;
  readonly height: number;
  readonly preview: ImageBitmap;
}

/** The request as it went over the wire. */
export interface SentRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** The part of the body that is JSON, by the v2 protocol. */
  readonly json: string;
  /** The whole body. */
  readonly body: ArrayBuffer;
  readonly jsonBytes: number;
}

/** What an attacker made of the release. */
export interface Guess {
  readonly picture: ImageBitmap;
  /** 'linear' or 'decoder'. */
  readonly attacker: 'linear' | 'decoder';
  /** Of a decoder: 'a small decoder of 300 steps on 400 photos'. */
  readonly training: string | undefined;
  /** Structural similarity of the guess and the photo at the guess's size, in [−1, 1]. */
  readonly likeness: number;
}

/** One pass over the photo at one setting. */
export interface Run {
  readonly settingId: string;
  /** From the server, or from this tab where the setting is clean. */
  readonly faces: readonly Detection[];
  /** What the clean model finds, for comparison. */
  readonly cleanFaces: readonly Detection[] | undefined;
  readonly minScore: number;
  readonly release:
    | {
        readonly tiles: ImageBitmap;
        readonly shape: readonly number[];
        readonly channels: number;
        readonly keyId: string;
        readonly sentBytes: number;
        readonly receivedBytes: number;
        readonly request: SentRequest | undefined;
      }
    | undefined;
  readonly guess: Guess | undefined;
  readonly timing: {
    readonly readMs: number;
    readonly headMs: number;
    readonly noiseMs: number;
    readonly remoteMs: number;
    readonly totalMs: number;
  };
  readonly engine: string;
}

/** What the manifest of a bundle says. */
export interface Inspection {
  readonly bundleId: string;
  readonly hash: string;
  readonly figures: readonly Figure[];
  readonly modelSource: string;
  readonly natsPerPosition: number;
  readonly channels: number;
  readonly suppressedChannels: number;
  readonly attacker: 'linear' | 'decoder' | 'none';
}
