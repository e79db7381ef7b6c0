import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, describe, test } from 'node:test'
import type { Worker } from 'node:worker_threads'
import { openSqliteLedger, type SqliteLedger } from '../../../../src/ledger/sqlite/sqlite-ledger.ts'
import { aDigest, aRepository, aTag, ledgerConformance } from '../../../conformance/ledger.ts'

const folder = mkdtempSync(join(tmpdir(), 'entrepot-ledger-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let files = 0
const freshPath = (): string => join(folder, String(++files), 'ledger.sqlite')

const noError = (error: Error): void => assert.fail(error)
const hub = 'docker.io'
const alpine = aRepository('library/alpine')
const latest = aTag('latest')
const record = { digest: aDigest('v1'), checkedAt: 5 }

async function open(path: string, errors?: Error[], options: object = {}): Promise<SqliteLedger> {
  return openSqliteLedger({ path, onError: errors ? (error) => errors.push(error) : noError, ...options })
}

ledgerConformance('SQLite', () => open(freshPath()))

describe('a ledger opened again', () => {
  test('knows what it knew', async () => {
    const path = freshPath()
    const first = await open(path)
    first.writeTag(hub, alpine, latest, record)
    first.writeManifest(hub, alpine, aDigest('m'), [{ digest: aDigest('l'), size: 1, role: 'layer' }])
    first.touch(hub, alpine, aDigest('m'), 'get', 9)
    first.markComplete(hub)
    await first.close()
    assert.deepEqual(readdirSync(join(path, '..')), ['ledger.sqlite'])
    const second = await open(path)
    assert.deepEqual(await second.readTag(hub, alpine, latest), record)
    assert.equal((await second.readParents(hub, alpine, aDigest('l')))[0]?.parent, aDigest('m'))
    assert.equal((await second.readUsage(hub, alpine, aDigest('m')))?.gets, 1)
    assert.equal(await second.isComplete(hub), true)
    await second.close()
  })

  test('that is open already is refused, and says what to do', async () => {
    const path = freshPath()
    const first = await open(path)
    await assert.rejects(open(path), { code: 'STORE_UNUSABLE', message: /another process has it open/ })
    await first.close()
    await (await open(path)).close()
  })

  test('of schema version 1 is migrated and keeps its facts', async () => {
    const path = freshPath()
    await (await open(path)).close()
    const db = new DatabaseSync(path)
    const tables = db.prepare(`SELECT name FROM sqlite_schema WHERE type = 'table'`).all()
    for (const { name } of tables) db.exec(`DROP TABLE ${String(name)}`)
    db.exec(readFileSync(new URL('../../../fixtures/ledger-v1.sql', import.meta.url), 'utf8'))
    db.close()
    const ledger = await open(path)
    const digest = aDigest('fixture')
    assert.deepEqual(await ledger.readTag(hub, alpine, latest), { digest, checkedAt: 1_700_000_000_000 })
    assert.deepEqual(await ledger.readChildren(hub, alpine, digest), [
      { digest: aDigest('layer'), size: 7, role: 'layer' },
    ])
    assert.deepEqual(await ledger.readUsage(hub, alpine, digest), { gets: 3, lastGetAt: 30, lastHeadAt: 40 })
    assert.deepEqual(await ledger.readVerified(hub, aDigest('layer')), { size: 7, mtimeMs: 1.5 })
    assert.equal(await ledger.isComplete(hub), true)
    await ledger.close()
  })

  test('of a newer release is refused untouched, and says what to do', async () => {
    const path = freshPath()
    await (await open(path)).close()
    const db = new DatabaseSync(path)
    db.exec('PRAGMA user_version = 99')
    db.close()
    await assert.rejects(open(path), { code: 'STORE_UNUSABLE', message: /schema version 99.*start the newer release/ })
    await assert.rejects(open(path), /schema version 99/)
  })

  test('at a place that cannot be written is refused, and says what to do', async () => {
    const path = freshPath()
    await (await open(path)).close()
    await assert.rejects(open(join(path, 'below-a-file', 'ledger.sqlite')), {
      code: 'STORE_UNUSABLE',
      message: /must exist on a local disk and be writable/,
    })
    await assert.rejects(open(join(path, '..')), { code: 'STORE_UNUSABLE' })
    // A file system that says ENOENT for what is there: no loop.
    if (process.platform === 'linux') await assert.rejects(open('/proc/none/l.sqlite'), { code: 'STORE_UNUSABLE' })
  })
})

describe('a corrupt ledger', () => {
  test('that is no database is moved aside, said, and begun anew', async () => {
    const path = freshPath()
    await (await open(path)).close()
    writeFileSync(path, 'not a database at all'.repeat(500))
    const errors: Error[] = []
    const ledger = await open(path, errors)
    ledger.writeTag(hub, alpine, latest, record)
    assert.deepEqual(await ledger.readTag(hub, alpine, latest), record)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
    assert.equal(errors.length, 1)
    assert.match(errors[0]?.message ?? '', /moved to .*ledger\.sqlite\.corrupt-/)
    const aside = readdirSync(join(path, '..')).filter((name) => name.includes('.corrupt-'))
    assert.equal(aside.length, 1)
    assert.match(readFileSync(join(path, '..', aside[0] ?? ''), 'utf8'), /^not a database at all/)
  })

  test('that shows only in use is moved aside and begun anew', async () => {
    const path = freshPath()
    const first = await open(path)
    for (let n = 0; n < 5000; n++) first.writeTag(hub, alpine, aTag(`t${n}`), record)
    first.markComplete(hub)
    await first.close()
    const bytes = readFileSync(path)
    // The header and the schema's page stay; what follows is noise.
    bytes.fill(0x5a, 4096)
    writeFileSync(path, bytes)
    const errors: Error[] = []
    const ledger = await open(path, errors)
    for (let n = 0; n < 20; n++) assert.equal(await ledger.readTag(hub, alpine, aTag(`t${n}`)), undefined)
    ledger.writeTag(hub, alpine, latest, record)
    assert.deepEqual(await ledger.readTag(hub, alpine, latest), record)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
    assert.ok(errors.some((error) => /corrupt/.test(error.message)))
    assert.ok(readdirSync(join(path, '..')).some((name) => name.includes('.corrupt-')))
  })
})

describe('a killed process', () => {
  test('loses at most its last batch, and its facts are not taken as complete', async () => {
    const path = freshPath()
    const child = spawn(process.execPath, [new URL('./kill-me.ts', import.meta.url).pathname, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let seen = ''
    for await (const chunk of child.stdout) {
      seen += String(chunk)
      if (seen.includes('written')) break
    }
    child.kill('SIGKILL')
    await once(child, 'exit')
    const written = Number(/written (\d+)/.exec(seen)?.[1])
    const ledger = await open(path)
    assert.ok(await ledger.readTag(hub, alpine, aTag('t0')))
    let kept = 0
    while (await ledger.readTag(hub, alpine, aTag(`t${kept}`))) kept++
    assert.ok(kept >= written, `${kept} of ${written}`)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
  })
})

describe('many writes', () => {
  test('are all there, 50,000 of them, and the loop turns between', async () => {
    const ledger = await open(freshPath())
    let turns = 0
    const turn = (): void => {
      turns++
      ticking = setImmediate(turn)
    }
    let ticking = setImmediate(turn)
    const layers = [1, 2, 3, 4].map((n) => ({ digest: aDigest(n), size: n, role: 'layer' as const }))
    for (let n = 0; n < 10_000; n++) {
      ledger.writeManifest(hub, alpine, aDigest(n), layers)
      if (n % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await ledger.flush()
    clearImmediate(ticking)
    assert.equal(ledger.droppedRows, 0)
    assert.equal((await ledger.readParents(hub, alpine, aDigest(1))).length, 10_000)
    // Each batch is posted at once and applied elsewhere.
    assert.ok(turns >= 100, `${turns} turns`)
    await ledger.close()
  })

  test('adds up the uses of a hot manifest into one row', async () => {
    const ledger = await open(freshPath(), undefined, { maxPendingRows: 10 })
    for (let n = 1; n <= 10_000; n++) ledger.touch(hub, alpine, aDigest('hot'), 'get', n)
    assert.deepEqual(await ledger.readUsage(hub, alpine, aDigest('hot')), {
      gets: 10_000,
      lastGetAt: 10_000,
      lastHeadAt: 0,
    })
    assert.equal(ledger.droppedRows, 0)
    await ledger.close()
  })
})

describe('a ledger whose disk does not follow', () => {
  test('drops uses first, then everything, counts both, and is not complete any more', async () => {
    const errors: Error[] = []
    const path = freshPath()
    const ledger = await open(path, errors, { maxPendingRows: 100 })
    for (let n = 0; n < 150; n++) ledger.writeTag(hub, alpine, aTag(`t${n}`), record)
    ledger.touch(hub, alpine, aDigest('m'), 'get', 1)
    assert.equal(ledger.droppedRows, 1)
    for (let n = 150; n < 250; n++) ledger.writeTag(hub, alpine, aTag(`t${n}`), record)
    assert.equal(ledger.droppedRows, 51)
    ledger.markComplete(hub)
    assert.ok(await ledger.readTag(hub, alpine, aTag('t199')))
    assert.equal(await ledger.readTag(hub, alpine, aTag('t200')), undefined)
    assert.match(errors[0]?.message ?? '', /52 rows dropped/)
    ledger.markComplete(hub)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
    const again = await open(path)
    assert.equal(await again.isComplete(hub), false)
    await again.close()
  })

  test('that refuses a batch loses it, says so once a minute, and goes on', async () => {
    const errors: Error[] = []
    const path = freshPath()
    let now = 0
    const ledger = await open(path, errors, { clock: { now: () => now } })
    ledger.writeTag(hub, alpine, latest, record)
    await ledger.flush()
    // A size that is no number breaks NOT NULL: as any failing statement, it fails its whole batch.
    const failing = (): void => ledger.writeVerified(hub, aDigest(1), { size: Number.NaN, mtimeMs: 1 })
    for (let n = 0; n < 5; n++) {
      failing()
      await ledger.flush()
    }
    assert.equal(errors.length, 1)
    assert.match(errors[0]?.message ?? '', /write failed/)
    now = 61_000
    failing()
    await ledger.flush()
    assert.equal(errors.length, 2)
    assert.match(errors[1]?.message ?? '', /4 more/)
    assert.deepEqual(await ledger.readTag(hub, alpine, latest), record)
    ledger.writeTag(hub, alpine, latest, { ...record, checkedAt: 6 })
    assert.equal((await ledger.readTag(hub, alpine, latest))?.checkedAt, 6)
    ledger.markComplete(hub)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
  })

  test('that hangs answers "not known" after its time-out', async () => {
    const errors: Error[] = []
    const ledger = await open(freshPath(), errors, { readTimeoutMs: 1 })
    const layers = Array.from({ length: 9000 }, (_, n) => ({ digest: aDigest(n), size: n, role: 'layer' as const }))
    for (let n = 0; n < 8; n++) ledger.writeManifest(hub, alpine, aDigest(`m${n}`), layers)
    assert.equal(await ledger.readTag(hub, alpine, latest), undefined)
    assert.match(errors[0]?.message ?? '', /no answer after 1 ms/)
    await ledger.close()
  })
})

describe('a worker that dies', () => {
  test('loses what it was given, answers "not known", and is replaced', async () => {
    const path = freshPath()
    const errors: Error[] = []
    const workers: Worker[] = []
    const onWorker = (worker: Worker): number => workers.push(worker)
    process.on('worker', onWorker)
    const ledger = await open(path, errors, { restartMs: 10 })
    ledger.writeTag(hub, alpine, latest, record)
    ledger.markComplete(hub)
    await ledger.flush()
    const died = workers[0]?.terminate()
    const during = ledger.readTag(hub, alpine, latest)
    await died
    await during
    ledger.writeTag(hub, alpine, aTag('while-away'), record)
    let again: unknown
    for (let n = 0; n < 200 && again === undefined; n++) {
      again = await ledger.readTag(hub, alpine, latest)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    process.off('worker', onWorker)
    assert.equal(workers.length, 2)
    assert.deepEqual(again, record)
    assert.deepEqual(await ledger.readTag(hub, alpine, aTag('while-away')), record)
    assert.equal(await ledger.isComplete(hub), false)
    await ledger.close()
  })

  test('while the ledger is closed is not replaced', async () => {
    const ledger = await open(freshPath())
    const closed = ledger.close()
    assert.equal(await ledger.readTag(hub, alpine, latest), undefined)
    await closed
  })
})

test('the facts of an image of ten layers take less than 3 kB', async () => {
  const path = freshPath()
  const ledger = await open(path)
  for (let n = 0; n < 500; n++) {
    const layers = Array.from({ length: 10 }, (_, at) => ({
      digest: aDigest(`${n} ${at}`),
      size: at,
      role: 'layer' as const,
    }))
    ledger.writeManifest(hub, alpine, aDigest(n), layers)
  }
  await ledger.close()
  assert.ok(statSync(path).size / 500 < 3000, `${statSync(path).size / 500}`)
})
