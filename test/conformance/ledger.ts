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

    ledgerTest('images are what a tag points to or nothing names, by name and by last use', async (ledger) => {
      const layer: ChildRecord = { digest: aDigest('base'), size: 9, role: 'layer' }
      ledger.writeManifest(hub, alpine, aDigest('amd64'), [layer], 10)
      ledger.writeManifest(hub, alpine, aDigest('index'), [{ digest: aDigest('amd64'), size: 5, role: 'manifest' }], 20)
      ledger.writeManifest(
        hub,
        alpine,
        aDigest('signature'),
        [{ digest: aDigest('index'), size: 5, role: 'subject' }],
        5,
      )
      ledger.writeManifest(hub, busybox, aDigest('alone'), [layer], 30)
      ledger.writeManifest(ghcr, alpine, aDigest('elsewhere'), [layer], 1)
      ledger.writeTag(hub, alpine, latest, { digest: aDigest('index'), checkedAt: 0 })
      const names = async (): Promise<unknown> =>
        (await ledger.listImages(hub, { limit: 10 }))?.images.map((each) => [each.repository, each.digest, each.tags])
      assert.deepEqual(await names(), [
        [alpine, aDigest('index'), ['latest']],
        [busybox, aDigest('alone'), []],
      ])
      // A pull of one platform is a use of the index.
      ledger.touch(hub, alpine, aDigest('amd64'), 'get', 40)
      ledger.touch(hub, busybox, aDigest('alone'), 'head', 50)
      const first = await ledger.listLeastUsed(hub, { limit: 1 })
      assert.deepEqual(first?.images, [
        { repository: busybox, digest: aDigest('alone'), tags: [], addedAt: 30, usedAt: 30, lastHeadAt: 50, gets: 0 },
      ])
      const second = await ledger.listLeastUsed(hub, { limit: 1, after: first.next })
      assert.deepEqual(
        second?.images.map(({ digest, usedAt, addedAt }) => [digest, usedAt, addedAt]),
        [[aDigest('index'), 40, 20]],
      )
      assert.deepEqual((await ledger.listLeastUsed(hub, { limit: 1, after: second.next }))?.images, [])
      assert.deepEqual((await ledger.listImages(hub, { repository: busybox, limit: 10 }))?.images.length, 1)
      // A tag makes a platform an image of its own.
      ledger.writeTag(hub, alpine, aTag('amd64'), { digest: aDigest('amd64'), checkedAt: 0 })
      assert.deepEqual((await ledger.listImages(hub, { repository: alpine, limit: 10 }))?.images.length, 2)
    })

    ledgerTest('an image holds together what it names, and what names it as its subject', async (ledger) => {
      const config: ChildRecord = { digest: aDigest('config'), size: 3, role: 'config' }
      ledger.writeManifest(hub, alpine, aDigest('amd64'), [config], 1)
      ledger.writeManifest(
        hub,
        alpine,
        aDigest('index'),
        [
          { digest: aDigest('amd64'), size: 5, role: 'manifest' },
          { digest: aDigest('never pulled'), size: 6, role: 'manifest' },
        ],
        1,
      )
      ledger.writeManifest(hub, alpine, aDigest('sbom'), [{ digest: aDigest('index'), size: 5, role: 'subject' }], 1)
      assert.deepEqual(await ledger.readClosure(hub, alpine, aDigest('index')), [
        { parent: undefined, digest: aDigest('index'), role: 'manifest', size: 0, isTagged: false },
        { parent: aDigest('index'), digest: aDigest('amd64'), role: 'manifest', size: 5, isTagged: false },
        { parent: aDigest('amd64'), digest: aDigest('config'), role: 'config', size: 3, isTagged: false },
        { parent: aDigest('index'), digest: aDigest('sbom'), role: 'referrer', size: 0, isTagged: false },
      ])
      assert.deepEqual(await ledger.readClosure(ghcr, alpine, aDigest('index')), [])
    })

    ledgerTest('references count every repository of a namespace, and go with the manifest', async (ledger) => {
      const layer: ChildRecord = { digest: aDigest('base'), size: 9, role: 'layer' }
      const subject: ChildRecord = { digest: aDigest('base'), size: 9, role: 'subject' }
      ledger.writeManifest(hub, alpine, aDigest('m'), [layer], 1)
      ledger.writeManifest(hub, busybox, aDigest('m'), [layer], 1)
      ledger.writeManifest(hub, busybox, aDigest('n'), [subject], 1)
      ledger.writeManifest(ghcr, busybox, aDigest('m'), [layer], 1)
      const asked = [aDigest('base'), aDigest('m'), aDigest('unknown')]
      assert.deepEqual(await ledger.countReferences(hub, asked), [2, 2, 0])
      ledger.removeManifest(hub, alpine, aDigest('m'))
      ledger.removeManifest(hub, alpine, aDigest('m'))
      assert.deepEqual(await ledger.countReferences(hub, asked), [1, 1, 0])
      assert.deepEqual(await ledger.readChildren(hub, alpine, aDigest('m')), [])
      assert.deepEqual(await ledger.readParents(hub, alpine, aDigest('base')), [])
      assert.deepEqual(await ledger.countReferences('quay.io', asked), [0, 0, 0])
    })

    ledgerTest('verified bytes add up by namespace', async (ledger) => {
      ledger.writeVerified(hub, aDigest(1), { size: 100, mtimeMs: 1 })
      ledger.writeVerified(hub, aDigest(2), { size: 20, mtimeMs: 1 })
      ledger.writeVerified(ghcr, aDigest(1), { size: 3, mtimeMs: 1 })
      assert.equal(await ledger.readVerifiedBytes(hub), 120)
      ledger.removeVerified(hub, aDigest(1))
      assert.equal(await ledger.readVerifiedBytes(hub), 20)
      assert.equal(await ledger.readVerifiedBytes('quay.io'), 0)
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
