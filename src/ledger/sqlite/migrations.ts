/**
 * The schema, as the steps that lead to it. Step n takes a database from `user_version` n to n + 1; a step that was ever
 * released is never edited. Names are interned, so that a row of a common table is a few dozen bytes plus its digest.
 */
import type { DatabaseSync } from 'node:sqlite'
import { GatewayError } from '../../errors.ts'

export const MIGRATIONS: readonly string[] = [
  `CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

   CREATE TABLE namespace (
     id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, complete INTEGER NOT NULL DEFAULT 0);

   CREATE TABLE repository (
     id INTEGER PRIMARY KEY, namespace INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (namespace, name));

   CREATE TABLE tag (
     repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, checked_at INTEGER NOT NULL,
     PRIMARY KEY (repository, name)) WITHOUT ROWID;

   CREATE TABLE verified (
     namespace INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, mtime_ms REAL NOT NULL,
     PRIMARY KEY (namespace, digest)) WITHOUT ROWID;

   CREATE TABLE manifest (
     id INTEGER PRIMARY KEY, repository INTEGER NOT NULL, digest TEXT NOT NULL,
     gets INTEGER NOT NULL DEFAULT 0, last_get_at INTEGER NOT NULL DEFAULT 0, last_head_at INTEGER NOT NULL DEFAULT 0,
     UNIQUE (repository, digest));

   CREATE TABLE child (
     manifest INTEGER NOT NULL, position INTEGER NOT NULL, repository INTEGER NOT NULL,
     digest TEXT NOT NULL, size INTEGER NOT NULL, role TEXT NOT NULL,
     PRIMARY KEY (manifest, position)) WITHOUT ROWID;
   CREATE INDEX child_by_digest ON child (repository, digest);`,

  // What keeping asks: who was used least, and who needs a digest in any repository. What came before has come now:
  // an image of unknown age must not look like the oldest of all.
  `ALTER TABLE manifest ADD COLUMN added_at INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE manifest ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
   UPDATE manifest SET added_at = CAST(unixepoch('subsec') * 1000 AS INTEGER);
   UPDATE manifest SET used_at = CASE last_get_at WHEN 0 THEN added_at ELSE last_get_at END;
   CREATE INDEX manifest_by_use ON manifest (used_at, id);
   CREATE INDEX manifest_by_digest ON manifest (digest);
   CREATE INDEX tag_by_digest ON tag (repository, digest);
   DROP INDEX child_by_digest;
   CREATE INDEX child_by_digest ON child (digest, repository);`,
]

/**
 * Brings a database to the newest schema, one transaction a step, so that a crash leaves a whole version behind.
 * Fails with STORE_UNUSABLE, untouched, when the database was written by a newer release.
 */
export function migrate(db: DatabaseSync, path: string, steps: readonly string[] = MIGRATIONS): void {
  const version = Number(db.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0)
  if (version > steps.length) {
    throw new GatewayError(
      'STORE_UNUSABLE',
      `ledger ${path}: has schema version ${version}, this release knows up to ${steps.length}: start the newer release ` +
        `again, or move the file away and a new one is rebuilt from the data folder (last use and pull counts are lost)`,
    )
  }
  for (const [at, step] of steps.entries()) {
    if (at < version) continue
    // The version changes in the same transaction as the tables. A pragma takes no parameters.
    db.exec(`BEGIN IMMEDIATE; ${step}; PRAGMA user_version = ${at + 1}; COMMIT`)
  }
}
