/** What every ledger must do, called by each implementation's test with a way to open an empty one. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ChildRecord, Ledger } from '../../src/ledger/ledger.ts'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import { parseTag, type Tag } from '../../src/oci/reference.ts'
import { parseRepository, type Repository } from '../../src/oci/repository.ts'

export function aDigest(seed: string | number): Digest {
  return digestOf(Buffer.from(String(seed)))
}

export function aRepository(name: string): Repository {
  const repository = parseRepository(name)
  assert.ok(repository)
  return repository
}

export function aTag(name: string): Tag {
  const tag = parseTag(name)
  assert.ok(tag)
  return tag
}

/** `open` gives an empty ledger each time it is called; the suite closes it. */
export function ledgerConformance(name: string, open: () => Promise<Ledger>): void {
  const hub = 'docker.io'
  const ghcr = 'ghcr.io'
  const alpine = aRepository('library/alpine')
  const busybox = aRepository('library/busybox')
  const latest = aTag('latest')
  const record = { digest: aDigest('v1'), checkedAt: 1_700_000_000_000 }
  const mark = { size: 123, mtimeMs: 1_700_000_000_000.125 }
  const edges: ChildRecord[] = [
    { digest: aDigest('config'), size: 10, role: 'config' },
    { digest: aDigest('layer z'), size: 0, role: 'layer' },
    { digest: aDigest('layer a'), size: Number.MAX_SAFE_INTEGER, role: 'layer' },
    { digest: aDigest('subject'), size: 5, role: 'subject' },
  ]

  const ledgerTest = (what: string, body: (ledger: Ledger) => Promise<void>): void => {
    test(what, async () => {
      const ledger = await open()
      try {
        await body(ledger)
      } finally {
        await ledger.close()
      }
    })
  }

  describe(`${name} keeps the ledger's contract`, () => {
    ledgerTest('what was never written is not known', async (ledger) => {
      assert.equal(await ledger.readTag(hub, alpine, latest), undefined)
      assert.equal(await ledger.readVerified(hub, aDigest(1)), undefined)
      assert.equal(await ledger.readUsage(hub, alpine, aDigest(1)), undefined)
      assert.deepEqual(await ledger.readParents(hub, alpine, aDigest(1)), [])
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest(1)), [])
      assert.equal(await ledger.isComplete(hub), false)
    })

    ledgerTest('a read sees the writes before it, without a flush', async (ledger) => {
      ledger.writeTag(hub, alpine, latest, record)
      assert.deepEqual(await ledger.readTag(hub, alpine, latest), record)
      ledger.writeTag(hub, alpine, latest, { ...record, checkedAt: 0 })
      const first = ledger.readTag(hub, alpine, latest)
      ledger.removeTag(hub, alpine, latest)
      const second = ledger.readTag(hub, alpine, latest)
      assert.deepEqual(await first, { ...record, checkedAt: 0 })
      assert.equal(await second, undefined)
    })

    ledgerTest('tags differ by case, repository and namespace', async (ledger) => {
      ledger.writeTag(hub, alpine, latest, record)
      assert.equal(await ledger.readTag(hub, alpine, aTag('LATEST')), undefined)
      assert.equal(await ledger.readTag(hub, busybox, latest), undefined)
      assert.equal(await ledger.readTag(ghcr, alpine, latest), undefined)
      ledger.removeTag(ghcr, alpine, latest)
      ledger.removeTag(hub, busybox, latest)
      assert.deepEqual(await ledger.readTag(hub, alpine, latest), record)
    })

    ledgerTest('verified marks keep fractions of a millisecond, and are apart by namespace', async (ledger) => {
      ledger.writeVerified(hub, aDigest(1), { size: 1, mtimeMs: 1 })
      ledger.writeVerified(hub, aDigest(1), mark)
      assert.deepEqual(await ledger.readVerified(hub, aDigest(1)), mark)
      assert.equal(await ledger.readVerified(ghcr, aDigest(1)), undefined)
      ledger.removeVerified(ghcr, aDigest(1))
      assert.deepEqual(await ledger.readVerified(hub, aDigest(1)), mark)
      ledger.removeVerified(hub, aDigest(1))
      assert.equal(await ledger.readVerified(hub, aDigest(1)), undefined)
    })

    ledgerTest('the edges of a manifest are read from both ends, in their order', async (ledger) => {
      ledger.writeManifest(hub, alpine, aDigest('m'), edges)
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), edges)
      assert.deepEqual(await ledger.readParents(hub, alpine, aDigest('config')), [
        { parent: aDigest('m'), size: 10, role: 'config' },
      ])
      for (const [namespace, repository] of [
        [ghcr, alpine],
        [hub, busybox],
      ] as const) {
        assert.deepEqual(await ledger.readChildren(namespace, repository, aDigest('m')), [])
        assert.deepEqual(await ledger.readParents(namespace, repository, aDigest('config')), [])
      }
    })

    ledgerTest('a manifest written again has the new edges only', async (ledger) => {
      ledger.writeManifest(hub, alpine, aDigest('m'), edges)
      ledger.writeManifest(hub, alpine, aDigest('m'), edges.slice(0, 1))
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), edges.slice(0, 1))
      assert.deepEqual(await ledger.readParents(hub, alpine, aDigest('layer a')), [])
      ledger.writeManifest(hub, alpine, aDigest('m'), [])
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), [])
    })

    ledgerTest('a child named twice is one edge, named as two things it is two', async (ledger) => {
      const empty = aDigest('{}')
      const config: ChildRecord = { digest: empty, size: 2, role: 'config' }
      const layer: ChildRecord = { digest: empty, size: 2, role: 'layer' }
      ledger.writeManifest(hub, alpine, aDigest('m'), [config, layer, layer])
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), [config, layer])
      assert.equal((await ledger.readParents(hub, alpine, empty)).length, 2)
    })

    ledgerTest('a shared child has every parent of its repository', async (ledger) => {
      const shared = edges.slice(1, 2)
      for (let n = 0; n < 50; n++) ledger.writeManifest(hub, alpine, aDigest(`m${n}`), shared)
      ledger.writeManifest(hub, busybox, aDigest('other'), shared)
      const parents = await ledger.readParents(hub, alpine, aDigest('layer z'))
      assert.deepEqual(
        parents.map(({ parent }) => parent).toSorted(),
        Array.from({ length: 50 }, (_, n) => aDigest(`m${n}`)).toSorted(),
      )
    })

    ledgerTest('a manifest of 10,000 children keeps them all', async (ledger) => {
      const many = Array.from({ length: 10_000 }, (_, n): ChildRecord => ({
        digest: aDigest(n),
        size: n,
        role: 'manifest',
      }))
      ledger.writeManifest(hub, alpine, aDigest('m'), many)
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), many)
    })

    ledgerTest('uses add up, a head is no pull, and time does not run backwards', async (ledger) => {
      ledger.touch(hub, alpine, aDigest('m'), 'head', 50)
      assert.deepEqual(await ledger.readUsage(hub, alpine, aDigest('m')), { gets: 0, lastGetAt: 0, lastHeadAt: 50 })
      ledger.touch(hub, alpine, aDigest('m'), 'get', 100)
      ledger.touch(hub, alpine, aDigest('m'), 'get', 90)
      assert.deepEqual(await ledger.readUsage(hub, alpine, aDigest('m')), { gets: 2, lastGetAt: 100, lastHeadAt: 50 })
      ledger.touch(hub, alpine, aDigest('m'), 'get', 80)
      ledger.touch(hub, alpine, aDigest('m'), 'head', 40)
      assert.deepEqual(await ledger.readUsage(hub, alpine, aDigest('m')), { gets: 3, lastGetAt: 100, lastHeadAt: 50 })
      assert.equal(await ledger.readUsage(ghcr, alpine, aDigest('m')), undefined)
    })

    ledgerTest('uses and edges of one manifest do not disturb each other', async (ledger) => {
      ledger.touch(hub, alpine, aDigest('m'), 'get', 7)
      ledger.writeManifest(hub, alpine, aDigest('m'), edges)
      assert.equal((await ledger.readUsage(hub, alpine, aDigest('m')))?.gets, 1)
      ledger.touch(hub, alpine, aDigest('m'), 'get', 8)
      ledger.writeManifest(hub, alpine, aDigest('m'), edges)
      assert.equal((await ledger.readUsage(hub, alpine, aDigest('m')))?.gets, 2)
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), edges)
      ledger.writeManifest(hub, alpine, aDigest('unused'), edges)
      assert.equal(await ledger.readUsage(hub, alpine, aDigest('unused')), undefined)
    })

    ledgerTest('a namespace is complete once that was said of it', async (ledger) => {
      ledger.markComplete(hub)
      ledger.markComplete(hub)
      assert.equal(await ledger.isComplete(hub), true)
      assert.equal(await ledger.isComplete(ghcr), false)
    })

    ledgerTest('after close, writes are ignored and reads know nothing', async (ledger) => {
      ledger.writeTag(hub, alpine, latest, record)
      await Promise.all([ledger.flush(), ledger.flush()])
      await Promise.all([ledger.close(), ledger.close()])
      ledger.writeTag(hub, alpine, latest, record)
      ledger.touch(hub, alpine, aDigest('m'), 'get', 1)
      assert.equal(await ledger.readTag(hub, alpine, latest), undefined)
      assert.deepEqual(await ledger.readParents(hub, alpine, aDigest('m')), [])
      assert.equal(await ledger.isComplete(hub), false)
      await ledger.flush()
    })
  })
}
