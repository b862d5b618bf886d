/**
 * Passwords as jupyter_server keeps them: `argon2:` and an argon2id hash with its own parameters (10 MiB, 10 passes,
 * 8 lanes, 16 bytes of salt, 32 of hash; jupyter_server.auth.security.passwd).
 */
import { randomBytes } from 'node:crypto';
import { argon2id } from 'hash-wasm';
import { assertArgument } from './argument.js';

/** Hashes a workspace's password. @throws INVALID_ARGUMENT where it is empty */
export async function hashJupyterPassword(password: string): Promise<string> {
  assertArgument(password.length > 0, 'password is empty, expected at least one character');
  const hash = await argon2id({
    password: password.normalize('NFC'),
    salt: randomBytes(16),
    parallelism: 8,
    iterations: 10,
    memorySize: 10_240,
    hashLength: 32,
    outputType: 'encoded',
  });
  return `argon2:${hash}`;
}
