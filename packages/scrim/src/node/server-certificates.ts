/**
 * Certificates of a listener, read and compared before anything listens: node:tls takes an empty certificate, and an empty
 * list of authorities means the system's to it, which would let strangers in.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { SecureContextOptions, TlsOptions } from 'node:tls';
import { ScrimError } from '../errors.js';

/** Certificate and key in PEM, and the authorities that clients' certificates must come from. */
export interface ServerTls {
  readonly cert: string | Uint8Array;
  readonly key: string | Uint8Array;
  /** With it clients must show a certificate (mTLS). */
  readonly clientCa?: string | Uint8Array;
}

/** @throws ScrimError INVALID_ARGUMENT naming what can't be read, or that key and certificate do not belong together */
export function checkServerTls({ cert, key, clientCa }: ServerTls): void {
  const certificate = read('the TLS certificate', () => new X509Certificate(bytesOf(cert)));
  const secret = read('the TLS key', (): KeyObject => createPrivateKey(bytesOf(key)));
  if (!certificate.checkPrivateKey(secret)) {
    throw new ScrimError('INVALID_ARGUMENT', 'the TLS key is not that of the certificate');
  }
  if (clientCa !== undefined) {
    read("the authorities of clients' certificates", () => new X509Certificate(bytesOf(clientCa)));
  }
}

/** What node:https and node:http2 are told: TLS 1.2 or later, and with authorities a certificate from every client. */
export function secureSettings({ cert, key, clientCa }: ServerTls): SecureContextOptions & TlsOptions {
  return {
    cert: cert as string,
    key: key as string,
    minVersion: 'TLSv1.2',
    ...(clientCa === undefined ? {} : { ca: clientCa as string, requestCert: true, rejectUnauthorized: true }),
  };
}

function read<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', `${what} can't be read as PEM`);
  }
}

function bytesOf(text: string | Uint8Array): Buffer {
  return Buffer.from(text as Uint8Array);
}
