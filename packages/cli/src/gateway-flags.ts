/** Flags of `scrim gateway` for the side that listens. */
import { Option } from 'commander';
import { ScrimError } from 'scrim';
import { ledgerFileFlags, ledgerPolicyFlags } from './ledger-flags.js';

/** Options of the side that listens. */
export function gatewayFlags(): Option[] {
  const port = (flag: string, fallback: number): Option =>
    new Option(`${flag} <port>`, '0 for any free one').default(fallback).argParser((text) => {
      const value = Number(text);
      if (Number.isInteger(value) && value >= 0 && value <= 65_535) return value;
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected an integer from 0 to 65535`);
    });
  return [
    new Option('--name <name>', "name clients ask for; default: the clean model's"),
    new Option('--remote-model <name>', 'model to ask upstream; default: what the bundle calls the one for --payload'),
    new Option('--host <address>', 'address to listen on').default('127.0.0.1'),
    port('--http-port', 8000),
    new Option('--no-http-port', 'no HTTP'),
    port('--grpc-port', 8001),
    new Option('--no-grpc-port', 'no gRPC'),
    port('--metrics-port', 8002),
    new Option('--no-metrics-port', 'neither metrics nor counts'),
    new Option('--tls-cert <file>', 'certificate chain to show clients (PEM)'),
    new Option('--tls-key <file>', 'its key (PEM)'),
    new Option('--tls-client-ca <file>', 'authorities clients must have a certificate of (PEM)'),
    new Option('--client-tokens <file>', 'bearer tokens, one a line: clients must bear one'),
    new Option(
      '--repeatable-secret <file>',
      'at least 32 secret bytes: the same image then gets the same noise, so that asking again tells nothing new',
    ),
    new Option('--no-release-counts', 'do not count releases of the same image'),
    ...ledgerFileFlags(),
    new Option(
      '--subject-header <name>',
      'HTTP header, or request parameter, that says whom a request is about',
    ).default('X-Scrim-Subject'),
    ...ledgerPolicyFlags(),
    new Option(
      '--raise-to <bundle[=model]...>',
      'bundles of rising alpha to go on with when nats run out, each with its remote model',
    ),
    new Option('--concurrency <n>', 'requests that may be under way upstream').default(4).argParser(Number),
  ];
}
