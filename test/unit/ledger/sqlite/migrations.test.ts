import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { migrate, MIGRATIONS } from '../../../../src/ledger/sqlite/migrations.ts'

const versionOf = (db: DatabaseSync): unknown => db.prepare('PRAGMA user_version').get()?.['user_version']

function schemaOf(db: DatabaseSync): unknown[] {
  const rows = db.prepare('SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name').all()
  return rows.map(({ name, sql }) => [name, String(sql).replaceAll(/\s+/g, ' ')])
}

function version1(): DatabaseSync {
  const db = new DatabaseSync(':memory:')
  db.exec(readFileSync(new URL('../../../fixtures/ledger-v1.sql', import.meta.url), 'utf8'))
  return db
}

describe('migrate', () => {
  test('makes an empty database, and again changes nothing', () => {
    using db = new DatabaseSync(':memory:')
    migrate(db, 'x')
    assert.equal(versionOf(db), MIGRATIONS.length)
    const schema = schemaOf(db)
    migrate(db, 'x')
    assert.deepEqual(schemaOf(db), schema)
  })

  test('never edits a released step: version 1 is what it was', () => {
    using old = version1()
    using fresh = new DatabaseSync(':memory:')
    migrate(fresh, 'x', MIGRATIONS.slice(0, 1))
    assert.deepEqual(schemaOf(fresh), schemaOf(old))
  })

  test('takes version 1 to a later one and keeps its rows', () => {
    using db = version1()
    const later = [...MIGRATIONS.slice(0, 1), `ALTER TABLE tag ADD COLUMN etag TEXT`, `UPDATE tag SET etag = 'none'`]
    migrate(db, 'x', later)
    assert.equal(versionOf(db), 3)
    assert.deepEqual(
      { ...db.prepare('SELECT name, checked_at, etag FROM tag').get() },
      {
        name: 'latest',
        checked_at: 1_700_000_000_000,
        etag: 'none',
      },
    )
  })

  test('that fails half way leaves the last whole version', () => {
    using db = version1()
    const broken = [...MIGRATIONS.slice(0, 1), 'CREATE TABLE kept (a)', 'CREATE TABLE lost (a); SELECT * FROM nowhere']
    assert.throws(() => migrate(db, 'x', broken), /nowhere/)
    if (db.isTransaction) db.exec('ROLLBACK')
    assert.equal(versionOf(db), 2)
    assert.equal(db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'lost'`).get(), undefined)
  })

  test('refuses a newer version and says what to do', () => {
    using db = new DatabaseSync(':memory:')
    db.exec('PRAGMA user_version = 7')
    assert.throws(() => migrate(db, '/x/ledger.sqlite', ['', '']), {
      code: 'STORE_UNUSABLE',
      message: /\/x\/ledger\.sqlite: has schema version 7, this release knows up to 2: start the newer release/,
    })
  })
})
