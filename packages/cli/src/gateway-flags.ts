/** Flags of `scrim gateway` for the side that listens. */
import { Option } from 'commander';
import { ledgerFileFlags, ledgerPolicyFlags } from './ledger-flags.js';
import { integer, listenerFlags } from './listener-flags.js';

/** Options of the side that listens. */
export function gatewayFlags(): Option[] {
  return [
    new Option('--name <name>', "name clients ask for; default: the clean model's"),
    new Option('--remote-model <name>', 'model to ask upstream; default: what the bundle calls the one for --payload'),
    ...listenerFlags(),
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
    new Option('--concurrency <n>', 'requests that may be under way upstream')
      .default(4)
      .argParser(integer('--concurrency', 1, 64)),
  ];
}
