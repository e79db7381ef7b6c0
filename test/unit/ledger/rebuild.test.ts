import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  rebuildNamespace,
  type RebuildProgress,
  type RebuildSource,
  type RevisionFound,
} from '../../../src/ledger/rebuild.ts'
import { openSqliteLedger, type SqliteLedger } from '../../../src/ledger/sqlite/sqlite-ledger.ts'
import { digestOf, type Digest } from '../../../src/oci/digest.ts'
import { parseManifest, type Manifest } from '../../../src/oci/manifest.ts'
import { OCI_INDEX, OCI_MANIFEST } from '../../../src/oci/media-types.ts'
import type { Tag } from '../../../src/oci/reference.ts'
import type { Repository } from '../../../src/oci/repository.ts'
import { FsStore } from '../../../src/store/fs/fs-store.ts'
import { Hasher } from '../../../src/store/fs/hasher.ts'
import type { Store } from '../../../src/store/store.ts'
import { aDigest, aRepository, aTag } from '../../conformance/ledger.ts'

const folder = mkdtempSync(join(tmpdir(), 'entrepot-rebuild-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let files = 0

const namespace = 'ghcr.io'
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: aDigest('layer'), size: 4 }

function aManifest(document: object): Manifest {
  const bytes = Buffer.from(JSON.stringify(document))
  return { bytes, digest: digestOf(bytes), mediaType: OCI_MANIFEST }
}
const anImage = (note: string): Manifest => aManifest({ layers: [layer], annotations: { note } })

/** A store in memory that counts what is read of it. */
class MemorySource implements RebuildSource {
  readonly revisions = new Map<Repository, Map<Digest, Manifest | undefined>>()
  readonly tags = new Map<Repository, Map<Tag, Digest>>()
  manifestReads = 0
  broken: Repository | undefined

  add(repository: Repository, manifest: Manifest, tag?: Tag): void {
    const revisions = this.revisions.get(repository) ?? new Map<Digest, Manifest | undefined>()
    this.revisions.set(repository, revisions.set(manifest.digest, manifest))
    const tags = this.tags.get(repository) ?? new Map<Tag, Digest>()
    if (tag) this.tags.set(repository, tags.set(tag, manifest.digest))
  }

  async listRepositories({ last = '', limit }: { last?: string; limit: number }): Promise<Repository[]> {
    return [...this.revisions.keys()]
      .filter((name) => name > last)
      .toSorted()
      .slice(0, limit)
  }

  async listTags(repository: Repository): Promise<Tag[]> {
    return [...(this.tags.get(repository)?.keys() ?? [])]
  }

  async readTag(repository: Repository, tag: Tag): Promise<Digest | undefined> {
    return this.tags.get(repository)?.get(tag)
  }

  async listRevisions(repository: Repository): Promise<RevisionFound[]> {
    if (repository === this.broken) throw new Error('list: EIO')
    return [...(this.revisions.get(repository)?.keys() ?? [])].map((digest) => ({
      digest,
      isRevoked: false,
      usedAt: 77,
    }))
  }

  async readManifest(_: Repository, digest: Digest): Promise<Manifest | undefined> {
    this.manifestReads++
    for (const revisions of this.revisions.values()) if (revisions.has(digest)) return revisions.get(digest)
    return undefined
  }
}

async function withLedger(body: (ledger: SqliteLedger) => Promise<void>): Promise<void> {
  const ledger = await openSqliteLedger({
    path: join(folder, `${++files}.sqlite`),
    onError: (error) => assert.fail(error),
  })
  try {
    await body(ledger)
  } finally {
    await ledger.close()
  }
}

interface Given {
  readonly store: RebuildSource
  readonly ledger: SqliteLedger
  readonly signal?: AbortSignal
  readonly report?: (progress: RebuildProgress) => void
  readonly now?: number
}
const rebuild = ({ store, ledger, signal, report, now }: Given): Promise<RebuildProgress> =>
  rebuildNamespace({
    namespace,
    store,
    ledger,
    parse: parseManifest,
    signal: signal ?? new AbortController().signal,
    report: report ?? (() => undefined),
    clock: { now: () => now ?? 1000 },
  })

const app = aRepository('acme/app')
const latest = aTag('latest')

describe('rebuildNamespace', () => {
  test('writes edges, and tags as stale, then says that the namespace is complete', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      const image = anImage('a')
      const index = aManifest({
        manifests: [{ mediaType: OCI_MANIFEST, digest: image.digest, size: image.bytes.length }],
      })
      store.add(app, image)
      store.add(app, index, latest)
      const progress = await rebuild({ store, ledger })
      assert.deepEqual(progress, {
        namespace,
        repositories: 1,
        manifests: 2,
        tags: 1,
        unreadable: 0,
        failed: 0,
        failure: undefined,
      })
      assert.deepEqual(await ledger.readTag(namespace, app, latest), { digest: index.digest, checkedAt: 0 })
      assert.equal((await ledger.readParents(namespace, app, image.digest))[0]?.parent, index.digest)
      assert.equal((await ledger.readParents(namespace, app, layer.digest))[0]?.parent, image.digest)
      assert.equal(await ledger.isComplete(namespace), true)
      assert.equal(await ledger.isComplete('docker.io'), false)
    }))

  test('reads every page of repositories, and says how far it is', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      for (let n = 0; n < 250; n++) store.add(aRepository(`r${n}`), anImage(String(n)))
      const seen: number[] = []
      await rebuild({ store, ledger, report: ({ repositories }) => seen.push(repositories) })
      assert.deepEqual(seen, [100, 200, 250])
    }))

  test('again reads no known manifest and changes nothing', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      for (let n = 0; n < 20; n++) store.add(app, anImage(String(n)), aTag(`t${n}`))
      await rebuild({ store, ledger })
      assert.equal(store.manifestReads, 20)
      await rebuild({ store, ledger })
      assert.equal(store.manifestReads, 20)
      assert.equal((await ledger.readParents(namespace, app, layer.digest)).length, 20)
    }))

  test('that is aborted keeps what it has, is not complete, and goes on from there', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      for (let n = 0; n < 300; n++) store.add(aRepository(`r${n}`), anImage(String(n)))
      const stop = new AbortController()
      const report = (): void => stop.abort(new Error('shutting down'))
      await assert.rejects(rebuild({ store, ledger, signal: stop.signal, report }), /shutting down/)
      assert.equal(await ledger.isComplete(namespace), false)
      const read = store.manifestReads
      assert.ok(read >= 100 && read < 300)
      await rebuild({ store, ledger })
      assert.equal(store.manifestReads, 300)
      assert.equal(await ledger.isComplete(namespace), true)
    }))

  test('leaves what the gateway wrote meanwhile, and corrects what the folder says otherwise', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      const image = anImage('folder')
      for (const tag of ['fresh', 'same', 'other']) store.add(app, image, aTag(tag))
      const fresh = { digest: aDigest('new'), checkedAt: 1001 }
      const same = { digest: image.digest, checkedAt: 900 }
      ledger.writeTag(namespace, app, aTag('fresh'), fresh)
      ledger.writeTag(namespace, app, aTag('same'), same)
      ledger.writeTag(namespace, app, aTag('other'), { digest: aDigest('old'), checkedAt: 900 })
      await rebuild({ store, ledger, now: 1000 })
      assert.deepEqual(await ledger.readTag(namespace, app, aTag('fresh')), fresh)
      assert.deepEqual(await ledger.readTag(namespace, app, aTag('same')), same)
      assert.deepEqual(await ledger.readTag(namespace, app, aTag('other')), { digest: image.digest, checkedAt: 0 })
    }))

  test('takes no edge from bytes that are not what their digest says', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      const forged = { ...anImage('forged'), digest: aDigest('claimed') }
      store.add(app, forged, latest)
      store.add(app, { ...aManifest({ no: 'manifest' }) })
      store.revisions.get(app)?.set(aDigest('missing'), undefined)
      const progress = await rebuild({ store, ledger })
      assert.equal(progress.unreadable, 3)
      assert.deepEqual(await ledger.readChildren(namespace, app, forged.digest), [])
      assert.equal(await ledger.isComplete(namespace), true)
    }))

  test('goes on past a repository that cannot be read, but is not complete', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      const rest = aRepository('zebra')
      store.add(app, anImage('a'), latest)
      store.add(rest, anImage('z'), latest)
      store.broken = app
      const progress = await rebuild({ store, ledger })
      assert.equal(progress.failed, 1)
      assert.match(String(progress.failure), /EIO/)
      assert.ok(await ledger.readTag(namespace, rest, latest))
      assert.equal(await ledger.isComplete(namespace), false)
      store.broken = undefined
      await rebuild({ store, ledger })
      assert.equal(await ledger.isComplete(namespace), true)
    }))

  test('lets the loop turn between manifests', () =>
    withLedger(async (ledger) => {
      const store = new MemorySource()
      for (let n = 0; n < 300; n++) store.add(app, anImage(String(n)), aTag(`t${n}`))
      let turns = 0
      const turn = (): void => {
        turns++
        ticking = setImmediate(turn)
      }
      let ticking = setImmediate(turn)
      await rebuild({ store, ledger })
      clearImmediate(ticking)
      // A source in memory never waits by itself: each turn is one that the rebuild gave away.
      assert.ok(turns >= 20, `${turns} turns`)
    }))

  test('reads a folder, and leaves out what was revoked in it', () =>
    withLedger(async (ledger) => {
      const hasher = new Hasher()
      const store: Store = await FsStore.open({ root: join(folder, 'store'), hasher })
      const image = anImage('on disk')
      const gone = anImage('revoked')
      const index = { ...aManifest({ mediaType: OCI_INDEX, manifests: [] }), mediaType: OCI_INDEX }
      for (const manifest of [image, gone, index]) await store.writeManifest(app, manifest)
      await store.writeTag(app, latest, image.digest)
      await store.revokeLink(app, 'manifest', gone.digest)
      const progress = await rebuild({ store, ledger })
      assert.deepEqual(progress, {
        namespace,
        repositories: 1,
        manifests: 2,
        tags: 1,
        unreadable: 0,
        failed: 0,
        failure: undefined,
      })
      assert.deepEqual(await ledger.readTag(namespace, app, latest), { digest: image.digest, checkedAt: 0 })
      assert.deepEqual(
        (await ledger.readParents(namespace, app, layer.digest)).map(({ parent }) => parent),
        [image.digest],
      )
      await store.close()
      await hasher.close()
    }))
})
