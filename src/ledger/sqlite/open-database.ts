/** Opening the ledger's file: exclusive, in WAL mode, migrated; what is corrupt is moved aside, never deleted. */
import { existsSync, mkdirSync, renameSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { GatewayError } from '../../errors.ts'
import type { ProblemTopic } from './messages.ts'
import { migrate } from './migrations.ts'

/** An earlier process may still be closing: long enough for that, short enough for a start. */
const BUSY_TIMEOUT_MS = 1000
/** 256 MiB in pages of 4 KiB: some million facts, when they cannot be on disk. */
const MAX_MEMORY_PAGES = 65_536

// Primary result codes, https://www.sqlite.org/rescode.html
const SQLITE_BUSY = 5
const SQLITE_IOERR = 10
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26

export interface OpenDatabaseOptions {
  readonly path: string
  /** Epoch ms; names the file a corrupt database is moved to. */
  readonly now: number
  /** Says what was wrong and how it was got round. */
  readonly report: (topic: ProblemTopic, message: string) => void
}

/**
 * Opens the ledger. A corrupt file is moved aside and a new one begun; with a full or failing disk the ledger lives in
 * memory until the next start: both are reported. Fails with STORE_UNUSABLE when another process has it, when it is of a
 * newer release, or when it cannot be opened at all.
 */
export function openDatabase({ path, now, report }: OpenDatabaseOptions): DatabaseSync {
  try {
    return openFile(path)
  } catch (error) {
    if (isCorruption(error)) {
      const aside = moveAside(path, now)
      report(
        'corrupt',
        `ledger ${path}: ${messageOf(error)}: moved to ${aside}, a new one is rebuilt from the data folder`,
      )
      return openFile(path)
    }
    if (!isDiskTrouble(error)) throw asUnusable(path, error)
    report('memory', `ledger ${path}: ${messageOf(error)}: kept in memory until the next start; make room on that disk`)
    return openMemory()
  }
}

/** Whether SQLite found that the file is not, or no longer, a sound database. */
export function isCorruption(error: unknown): boolean {
  const code = resultCodeOf(error)
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Not by `recursive`: where a file system says ENOENT for a folder that is there (/proc does), Node 26 loops for ever. */
function createFolders(path: string): void {
  const missing: string[] = []
  for (let folder = resolve(path); !existsSync(folder); folder = dirname(folder)) missing.push(folder)
  for (const folder of missing.toReversed()) mkdirSync(folder)
}

function openFile(path: string): DatabaseSync {
  try {
    createFolders(dirname(path))
  } catch (error) {
    throw asUnusable(path, error)
  }
  const db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    // 1. Exclusive before WAL: then no shared-memory file is needed, and a second gateway is refused.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL')
    // 2. What follows must be on disk before anything relies on it.
    db.exec('PRAGMA synchronous = FULL')
    migrate(db, path)
    distrustAfterUncleanStop(db)
    // 3. From here a commit costs no sync; a power cut loses the newest batches, and step 2 of the next start knows.
    db.exec('PRAGMA synchronous = NORMAL')
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

function openMemory(): DatabaseSync {
  const db = new DatabaseSync(':memory:')
  db.exec(`PRAGMA max_page_count = ${MAX_MEMORY_PAGES}`)
  migrate(db, ':memory:')
  return db
}

/** `clean` is 1 only between an orderly close and the next open: otherwise the last writes may be missing. */
function distrustAfterUncleanStop(db: DatabaseSync): void {
  db.exec(`
    BEGIN IMMEDIATE;
    UPDATE namespace SET complete = 0
      WHERE complete = 1 AND NOT EXISTS (SELECT 1 FROM state WHERE key = 'clean' AND value = '1');
    INSERT INTO state (key, value) VALUES ('clean', '0') ON CONFLICT (key) DO UPDATE SET value = '0';
    COMMIT`)
}

/** Moves the database and its side files; the WAL belongs to the file it was written for and must not meet the new one. */
function moveAside(path: string, now: number): string {
  const aside = `${path}.corrupt-${new Date(now).toISOString().replaceAll(/[:.]/g, '-')}`
  try {
    for (const suffix of ['', '-wal', '-shm', '-journal']) {
      if (existsSync(path + suffix)) renameSync(path + suffix, aside + suffix)
    }
  } catch (error) {
    throw new GatewayError(
      'STORE_UNUSABLE',
      `ledger ${path}: is corrupt and cannot be moved aside: ${messageOf(error)}`,
      {
        cause: error,
      },
    )
  }
  return aside
}

function asUnusable(path: string, error: unknown): GatewayError {
  if (error instanceof GatewayError) return error
  const advice =
    resultCodeOf(error) === SQLITE_BUSY
      ? 'another process has it open: one gateway at a time owns it; stop the other one, or give this one its own `ledger:`'
      : 'its folder must exist on a local disk and be writable by this user; `ledger:` in entrepot.yaml names the file'
  return new GatewayError('STORE_UNUSABLE', `ledger ${path}: cannot be opened: ${messageOf(error)}: ${advice}`, {
    cause: error,
  })
}

function isDiskTrouble(error: unknown): boolean {
  const code = resultCodeOf(error)
  return code === SQLITE_FULL || code === SQLITE_IOERR
}

/** SQLite's primary result code; extended codes carry it in the low byte. */
function resultCodeOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return undefined
  return error.errcode & 0xff
}
