/** TLS of clients, the same for HTTP and gRPC. */
import { type ConnectionOptions, createSecureContext } from 'node:tls';
import { assertArgument, ScrimError } from '../errors.js';

/** TLS of a client: PEM texts. */
export interface ClientTls {
  /** Authorities to trust in place of the system's. */
  readonly ca?: string | Uint8Array;
  /** Certificate and key of this client, for servers that ask for one. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  readonly passphrase?: string;
  /** Name to expect in the server's certificate, where it is not the host of the URL. */
  readonly serverName?: string;
}

/** What node:tls is given for `tls`. @throws ScrimError INVALID_ARGUMENT for PEM texts that are none or do not fit */
export function clientTlsSettings(tls: ClientTls): ConnectionOptions {
  const { ca, cert, key, passphrase, serverName } = tls;
  assertArgument((cert === undefined) === (key === undefined), 'tls.cert and tls.key belong together: one is missing');
  const given = Object.entries({ ca: pem(ca), cert: pem(cert), key: pem(key), passphrase });
  try {
    const secureContext = createSecureContext({
      ...(Object.fromEntries(given.filter(([, value]) => value !== undefined)) as object),
      minVersion: 'TLSv1.2',
    });
    return { secureContext, ...(serverName === undefined ? {} : { servername: serverName }) };
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', "tls can't be used");
  }
}

/** node:tls takes strings and Buffers. */
function pem(value: string | Uint8Array | undefined): string | Buffer | undefined {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}
