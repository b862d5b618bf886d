/**
 * A v2 client in one call, for Node: HTTP or gRPC as the URL says, with TLS and mutual TLS for both. The two clients
 * themselves are http-client.ts (which runs in browsers too) and grpc-client.ts.
 */
import { createTritonClient as createHttpClient, type TritonClientOptions } from '../client/http-client.js';
import type { TritonClient } from '../client/triton-client.js';
import type { ClientTls } from './client-tls.js';
import { createGrpcClient, type GrpcClient } from './grpc-client.js';
import { createHttpAgent } from './http-agent.js';

/** How a client is set up. What only one protocol has is left out over the other. */
export interface NodeTritonClientOptions extends Omit<TritonClientOptions, 'fetch' | 'transport'> {
  /** `http://host:8000`, `https://…`, `grpc://host:8001` or `grpcs://…`. */
  readonly url: string;
  readonly tls?: ClientTls;
  /** HTTP only: connections at a time; more calls wait. Default 64. gRPC shares one. */
  readonly maxConnections?: number;
}

/** Makes a client; nothing is sent before the first call. @throws ScrimError INVALID_ARGUMENT for a wrong URL or setting */
export function createTritonClient(
  options: NodeTritonClientOptions & { readonly url: `grpc://${string}` | `grpcs://${string}` },
): GrpcClient;
export function createTritonClient(options: NodeTritonClientOptions): TritonClient;
export function createTritonClient(options: NodeTritonClientOptions): TritonClient {
  const { tls, maxConnections, responseCompression, ...common } = options;
  if (/^grpcs?:/.test(options.url)) return createGrpcClient({ ...common, ...(tls === undefined ? {} : { tls }) });
  const transport = createHttpAgent({
    ...(tls === undefined ? {} : { tls }),
    ...(maxConnections === undefined ? {} : { maxConnections }),
  });
  return createHttpClient({
    ...common,
    transport,
    ...(responseCompression === undefined ? {} : { responseCompression }),
  });
}
