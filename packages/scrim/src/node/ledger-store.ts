/**
 * The ledger of releases in one SQLite file (package libsql, whose native binary ships inside its npm packages).
 *
 * Durable: write-ahead log with synchronous=FULL, so a charge is on disk before it returns and a killed process loses
 * none. Several processes may use one file: a charge is one BEGIN IMMEDIATE transaction. Subjects are kept as
 * HMAC-SHA-256 under a secret that lies in another file, never in clear: names and numbers can be guessed, so a plain
 * hash of them hides nothing. secure_delete, VACUUM and a truncated log make forgetting real.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ReleaseCharge, ReleaseLedger } from '../client/release-ledger.js';
import { assertArgument, ScrimError } from '../errors.js';

/** How much of one subject may be released. A limit that is left out does not limit. */
export interface LedgerPolicy {
  /** Releases of one subject within the period. */
  readonly maxReleases?: number;
  /** Nats of one subject within the period: the sum of the bounds of its releases. */
  readonly maxNats?: number;
  /** Length of the period in milliseconds; entries older than that are deleted. Left out, nothing ever expires. */
  readonly periodMs?: number;
}

/** What is kept about one subject. */
export interface SubjectRecord {
  /** First 16 hexadecimal digits of the subject's keyed hash. */
  readonly subject: string;
  readonly releases: number;
  readonly nats: number;
  /** Milliseconds since 1970. */
  readonly first: number;
  readonly last: number;
}

/** An open ledger. */
export interface LedgerStore extends ReleaseLedger {
  charge(charges: readonly ReleaseCharge[]): void;
  policy(): LedgerPolicy;
  /** Replaces the policy for every process that uses the file. @throws ScrimError INVALID_ARGUMENT for a wrong limit */
  setPolicy(policy: LedgerPolicy): void;
  /** Sums by subject, most nats first, within the period; with `subject` for that one alone. */
  report(subject?: string): SubjectRecord[];
  /**
   * Deletes all that is kept about `subject`, from the log and from free pages too, and returns how many releases that
   * were.
   * @throws ScrimError UNAVAILABLE if another process reads meanwhile, so that copies could stay in the log: try again
   */
  forget(subject: string): number;
  close(): void;
}

/** What {@link openLedger} opens. */
export interface LedgerOptions {
  /** SQLite file; made if it does not exist. */
  readonly file: string;
  /** File with at least 32 secret bytes. Default: `file` with '.key' behind, made with 32 random bytes, mode 0600. */
  readonly secretFile?: string;
  /** Milliseconds since 1970. Default: the system's clock. */
  readonly now?: () => number;
}

type Value = string | number | null;

/** The part of libsql's API that is used here. */
interface Statement {
  run(...values: readonly Value[]): { readonly changes: number };
  get(...values: readonly Value[]): unknown;
  all(...values: readonly Value[]): unknown[];
}
interface Database {
  prepare(sql: string): Statement;
  exec(sql: string): unknown;
  close(): void;
}
type DatabaseConstructor = new (file: string) => Database;

const FORMAT = 1;
const BUSY_MS = 10_000;
const MIN_SECRET_BYTES = 32;
const MAX_SUBJECT = 512;
const SHOWN_DIGITS = 16;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS releases (
    subject TEXT NOT NULL, at INTEGER NOT NULL, nats REAL NOT NULL, bundle TEXT NOT NULL, alpha REAL NOT NULL, key TEXT
  );
  CREATE INDEX IF NOT EXISTS releases_by_subject ON releases (subject, at);
  CREATE UNIQUE INDEX IF NOT EXISTS releases_by_key ON releases (subject, bundle, key) WHERE key IS NOT NULL;
`;

/**
 * Opens or makes a ledger.
 * @throws ScrimError UNSUPPORTED if libsql is not installed; INVALID_DATA for a file that is no ledger; UNAUTHENTICATED
 * for another secret than the one it was made with; NOT_FOUND if file or secret can't be opened
 */
export async function openLedger(options: LedgerOptions): Promise<LedgerStore> {
  const { file, secretFile = `${file}.key`, now = Date.now } = options;
  const Constructor = await loadDatabase();
  if (!existsSync(dirname(file)))
    throw new ScrimError('NOT_FOUND', `there is no folder '${dirname(file)}' for the ledger`);
  const secret = readSecret(secretFile, existsSync(file));
  const database = open(Constructor, file, secret);
  return guard(file, () => createStore(database, secret, file, now));
}

async function loadDatabase(): Promise<DatabaseConstructor> {
  try {
    const { default: Constructor } = (await import('libsql')) as unknown as { default: DatabaseConstructor };
    return Constructor;
  } catch (error) {
    throw new ScrimError('UNSUPPORTED', "a ledger needs the package 'libsql': npm install libsql", { cause: error });
  }
}

/** Reads the secret, or makes it for a new ledger; of two processes that make one at a time, one wins. */
function readSecret(path: string, isOld: boolean): Buffer {
  if (!existsSync(path)) {
    if (isOld) throw new ScrimError('NOT_FOUND', `the secret of the ledger, '${path}', does not exist`);
    const temporary = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
    try {
      writeFileSync(temporary, randomBytes(MIN_SECRET_BYTES), { mode: 0o600, flush: true });
      linkSync(temporary, path);
    } catch (error) {
      if (!existsSync(path)) throw ScrimError.from(error, 'UNAVAILABLE', `the secret '${path}' can't be written`);
    } finally {
      rmSync(temporary, { force: true });
    }
  }
  let secret: Buffer;
  try {
    secret = readFileSync(path);
  } catch (error) {
    throw ScrimError.from(error, 'NOT_FOUND', `the secret of the ledger, '${path}', can't be read`);
  }
  assertArgument(
    secret.length >= MIN_SECRET_BYTES,
    `the secret '${path}' has ${secret.length} bytes, expected at least ${MIN_SECRET_BYTES}`,
  );
  return secret;
}

function open(Constructor: DatabaseConstructor, file: string, secret: Buffer): Database {
  let database: Database | undefined;
  try {
    database = new Constructor(file);
    prepareFile(database, file, secret);
    return database;
  } catch (error) {
    database?.close();
    throw ScrimError.from(error, 'INVALID_DATA', `'${file}' can't be opened as a ledger`);
  }
}

function prepareFile(database: Database, file: string, secret: Buffer): void {
  database.prepare(`PRAGMA busy_timeout = ${BUSY_MS}`).get();
  chmodSync(file, 0o600);
  database.prepare('PRAGMA journal_mode = WAL').get();
  database.exec('PRAGMA synchronous = FULL');
  database.prepare('PRAGMA secure_delete = ON').get();
  transaction(database, () => {
    database.exec(SCHEMA);
    const metaOf = (name: string): unknown =>
      (database.prepare('SELECT value FROM meta WHERE name = ?').get(name) as { value: unknown } | undefined)?.value;
    const check = keyed(secret, 'scrim ledger');
    const known = metaOf('check');
    if (known === undefined) {
      database.prepare("INSERT INTO meta VALUES ('format', ?), ('check', ?), ('policy', '{}')").run(FORMAT, check);
    } else if (known !== check) {
      throw new ScrimError('UNAUTHENTICATED', `the ledger '${file}' was made with another secret`);
    }
    const format = metaOf('format');
    if (format !== FORMAT) {
      throw new ScrimError('INVALID_DATA', `the ledger '${file}' has format ${String(format)}, expected ${FORMAT}`);
    }
  });
}

function createStore(database: Database, secret: Buffer, file: string, now: () => number): LedgerStore {
  const hash = (subject: string): string => {
    assertArgument(
      typeof subject === 'string' && subject.length >= 1 && subject.length <= MAX_SUBJECT,
      `a subject has 1 to ${MAX_SUBJECT} characters`,
    );
    return keyed(secret, `subject:${subject}`);
  };
  const readPolicy = database.prepare("SELECT value FROM meta WHERE name = 'policy'");
  const spent = database.prepare(
    'SELECT count(*) AS releases, coalesce(sum(nats), 0) AS nats FROM releases WHERE subject = ?',
  );
  const known = database.prepare('SELECT 1 FROM releases WHERE subject = ? AND bundle = ? AND key = ?');
  const insert = database.prepare('INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)');
  const expire = database.prepare('DELETE FROM releases WHERE subject = ? AND at <= ?');
  const policy = (): LedgerPolicy => JSON.parse((readPolicy.get() as { value: string }).value) as LedgerPolicy;

  const chargeOne = (charge: ReleaseCharge, limits: LedgerPolicy, at: number): void => {
    const { nats, bundleHash, alpha, keyId } = charge;
    assertArgument(Number.isFinite(nats) && nats >= 0, 'the nats of a release are no number ≥ 0');
    const subject = hash(charge.subject);
    if (limits.periodMs !== undefined) expire.run(subject, at - limits.periodMs);
    if (keyId !== undefined && known.get(subject, bundleHash, keyId) !== undefined) return;
    const before = spent.get(subject) as { releases: number; nats: number };
    const refuse = (limit: 'releases' | 'nats', most: number, unit: string): never => {
      const period = limits.periodMs === undefined ? '' : ` within ${limits.periodMs / 1000} s`;
      throw new ScrimError(
        'RESOURCE_EXHAUSTED',
        `the subject's budget of ${most} ${unit}${period} does not allow another release; nothing was sent`,
        { details: { limit, most, subject: subject.slice(0, SHOWN_DIGITS) } },
      );
    };
    if (limits.maxReleases !== undefined && before.releases + 1 > limits.maxReleases) {
      refuse('releases', limits.maxReleases, 'releases');
    }
    if (limits.maxNats !== undefined && before.nats + nats > limits.maxNats) refuse('nats', limits.maxNats, 'nats');
    insert.run(subject, at, nats, bundleHash, alpha, keyId ?? null);
  };

  const { periodMs } = policy();
  if (periodMs !== undefined) database.prepare('DELETE FROM releases WHERE at <= ?').run(now() - periodMs);

  return {
    policy,
    charge: (charges) => {
      guard(file, () =>
        transaction(database, () => {
          const limits = policy();
          for (const charge of charges) chargeOne(charge, limits, now());
        }),
      );
    },
    setPolicy: (next) => {
      const kept = checkPolicy(next);
      guard(file, () => {
        database.prepare("UPDATE meta SET value = ? WHERE name = 'policy'").run(JSON.stringify(kept));
      });
    },
    report: (subject) =>
      guard(file, () => {
        const { periodMs } = policy();
        const rows = database
          .prepare(
            'SELECT subject, count(*) AS releases, sum(nats) AS nats, min(at) AS first, max(at) AS last FROM releases ' +
              'WHERE at > ? AND (? IS NULL OR subject = ?) GROUP BY subject ORDER BY nats DESC, subject',
          )
          .all(
            periodMs === undefined ? -1 : now() - periodMs,
            ...(subject === undefined ? [null, null] : [1, hash(subject)]),
          ) as SubjectRecord[];
        return rows.map(({ subject: name, releases, nats, first, last }) => ({
          subject: name.slice(0, SHOWN_DIGITS),
          releases,
          nats,
          first,
          last,
        }));
      }),
    forget: (subject) =>
      guard(file, () => {
        const { changes } = database.prepare('DELETE FROM releases WHERE subject = ?').run(hash(subject));
        database.exec('VACUUM');
        const { busy } = database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number };
        if (busy !== 0) {
          throw new ScrimError(
            'UNAVAILABLE',
            `the entries are deleted, but '${file}-wal' may still hold copies as another process reads it: forget again`,
          );
        }
        return changes;
      }),
    close: () => database.close(),
  };
}

/** Runs `work` in a write transaction. */
function transaction(database: Database, work: () => void): void {
  database.exec('BEGIN IMMEDIATE');
  try {
    work();
    database.exec('COMMIT');
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

/** SQLite's own errors (busy, disk full, damaged) as UNAVAILABLE: nothing may be sent. */
function guard<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ScrimError.from(error, 'UNAVAILABLE', `the ledger '${file}' can't be used`);
  }
}

function checkPolicy(policy: LedgerPolicy): LedgerPolicy {
  const { maxReleases, maxNats, periodMs } = policy;
  const whole = (value: number | undefined): boolean =>
    value === undefined || (Number.isSafeInteger(value) && value >= 0);
  assertArgument(whole(maxReleases), `maxReleases is ${maxReleases}, expected an integer ≥ 0`);
  assertArgument(maxNats === undefined || maxNats >= 0, `maxNats is ${maxNats}, expected a number ≥ 0`);
  assertArgument(whole(periodMs) && periodMs !== 0, `periodMs is ${periodMs}, expected an integer > 0`);
  return {
    ...(maxReleases === undefined ? {} : { maxReleases }),
    ...(maxNats === undefined ? {} : { maxNats }),
    ...(periodMs === undefined ? {} : { periodMs }),
  };
}

/** HMAC-SHA-256 in hexadecimal. (As text: libsql takes a single binary argument for named ones and aborts.) */
function keyed(secret: Buffer, text: string): string {
  return createHmac('sha256', secret).update(text, 'utf8').digest('hex');
}
