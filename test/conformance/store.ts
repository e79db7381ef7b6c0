/** What every store must do, whatever it keeps its bytes in. Each implementation's tests call this. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { codeOf } from '../../src/errors.ts'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import { MAX_MANIFEST_BYTES, type Manifest } from '../../src/oci/manifest.ts'
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts'
import { parseTag, type Tag } from '../../src/oci/reference.ts'
import { parseRepository, type Repository } from '../../src/oci/repository.ts'
import type { Incoming, Store } from '../../src/store/store.ts'

export interface StoreFixture extends AsyncDisposable {
  readonly store: Store
  /** Closes the store and opens its bytes anew, as a restart does. */
  reopen(): Promise<Store>
  /** Puts bytes under a digest's final name, right or wrong, as somebody else's hand would. */
  plant(digest: Digest, bytes: Uint8Array): Promise<void>
}

export function repository(name: string): Repository {
  const parsed = parseRepository(name)
  assert.ok(parsed !== undefined, name)
  return parsed
}

export function tag(name: string): Tag {
  const parsed = parseTag(name)
  assert.ok(parsed !== undefined, name)
  return parsed
}

/** Brings `bytes` in as a fill does, and gives them their name. */
export async function storeBlob(store: Store, bytes: Uint8Array, digest = digestOf(bytes)): Promise<Digest> {
  const incoming = await store.openIncoming(digest)
  await incoming.write([bytes], 0)
  await incoming.commit(bytes.byteLength)
  await incoming.close()
  return digest
}

export async function readBlob(store: Store, digest: Digest): Promise<Buffer | undefined> {
  const blob = await store.openBlob(digest)
  if (blob === undefined) return undefined
  try {
    return await readAll(blob, blob.size)
  } finally {
    await blob.close()
  }
}

async function readAll(source: Pick<Incoming, 'read'>, size: number): Promise<Buffer> {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size;) at += await source.read(bytes.subarray(at), at)
  return bytes
}

export function manifestOf(document: object, mediaType: string): Manifest {
  const bytes = Buffer.from(JSON.stringify(document))
  return { digest: digestOf(bytes), mediaType, bytes }
}

const image = manifestOf({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: {}, layers: [] }, OCI_MANIFEST)
const alpine = repository('library/alpine')

export function storeConformance(name: string, open: () => Promise<StoreFixture>): void {
  describe(`store conformance: ${name}`, () => {
    describe('blobs', () => blobTests(open))
    describe('incoming bodies', () => incomingTests(open))
    describe('unverified bytes', () => unverifiedTests(open))
    describe('links', () => linkTests(open))
    describe('manifests', () => manifestTests(open))
    describe('tags and listings', () => listingTests(open))
    describe('removal', () => removalTests(open))
  })
}

function blobTests(open: () => Promise<StoreFixture>): void {
  it('an absent blob is undefined, not an error', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('absent'))
    assert.equal(await fixture.store.openBlob(digest), undefined)
    assert.equal(await fixture.store.statBlob(digest), undefined)
    assert.equal(await fixture.store.openUnverified(digest), undefined)
    await fixture.store.quarantine(digest)
  })

  it('a committed blob is read back byte for byte, also after a restart', async () => {
    await using fixture = await open()
    const bytes = randomBytes(300_000)
    const digest = await storeBlob(fixture.store, bytes)
    assert.deepEqual(await readBlob(fixture.store, digest), bytes)
    const store = await fixture.reopen()
    assert.deepEqual(await readBlob(store, digest), bytes)
    assert.equal((await store.statBlob(digest))?.size, bytes.byteLength)
  })

  it('a sha512 blob and the empty blob are stored like any other', async () => {
    await using fixture = await open()
    const bytes = randomBytes(70_000)
    const sha512 = await storeBlob(fixture.store, bytes, digestOf(bytes, 'sha512'))
    assert.deepEqual(await readBlob(fixture.store, sha512), bytes)
    const empty = await storeBlob(fixture.store, Buffer.alloc(0))
    assert.deepEqual(await readBlob(fixture.store, empty), Buffer.alloc(0))
  })

  it('an empty file under the name of another blob counts as absent', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('something'))
    await fixture.plant(digest, Buffer.alloc(0))
    assert.equal(await fixture.store.openBlob(digest), undefined)
    assert.equal(await fixture.store.statBlob(digest), undefined)
    assert.equal(await fixture.store.openUnverified(digest), undefined)
  })

  it('an open blob is read to its end after its quarantine, and nobody opens it any more', async () => {
    await using fixture = await open()
    const bytes = randomBytes(50_000)
    const digest = await storeBlob(fixture.store, bytes)
    const blob = await fixture.store.openBlob(digest)
    assert.ok(blob !== undefined)
    await fixture.store.quarantine(digest)
    assert.equal(await fixture.store.statBlob(digest), undefined)
    assert.deepEqual(await readAll(blob, blob.size), bytes)
    await blob.close()
    assert.equal(
      await readBlob(fixture.store, await storeBlob(fixture.store, bytes)).then((read) => read?.byteLength),
      50_000,
    )
  })

  it('free space is told before anything is stored', async () => {
    await using fixture = await open()
    assert.ok((await fixture.store.freeBytes()) > 0)
  })
}

function incomingTests(open: () => Promise<StoreFixture>): void {
  it('bytes written out of order are held, read at once, and become the blob', async () => {
    await using fixture = await open()
    const bytes = randomBytes(100_000)
    const digest = digestOf(bytes)
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([bytes.subarray(60_000)], 60_000)
    assert.equal(incoming.held.heldFrom(0), 0)
    assert.equal(incoming.held.heldFrom(60_000), 40_000)
    const middle = Buffer.alloc(10)
    assert.equal(await incoming.read(middle, 70_000), 10)
    assert.deepEqual(middle, bytes.subarray(70_000, 70_010))
    await incoming.write([bytes.subarray(0, 60_000)], 0)
    incoming.advance(100_000)
    assert.equal(await incoming.computeDigest(100_000), digest)
    const { stamp, durable } = await incoming.commit(100_000)
    assert.equal(stamp.size, 100_000)
    assert.deepEqual(await fixture.store.statBlob(digest), stamp)
    assert.equal(await incoming.read(middle, 5), 10)
    assert.deepEqual(middle, bytes.subarray(5, 15))
    assert.equal(await durable, true)
    await incoming.close()
    assert.deepEqual(await readBlob(fixture.store, digest), bytes)
  })

  it('bytes that hash to something else never get the name', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('right'))
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([Buffer.from('wrong')], 0)
    assert.equal(await incoming.computeDigest(5), digestOf(Buffer.from('wrong')))
    await assert.rejects(incoming.commit(5), (error) => codeOf(error) === 'STORE_FAILED')
    await incoming.drop()
    assert.equal(await fixture.store.statBlob(digest), undefined)
    await storeBlob(fixture.store, Buffer.from('right'))
    assert.deepEqual(await readBlob(fixture.store, digest), Buffer.from('right'))
  })

  it('a body with a gap is not hashed and not committed', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('abcdef'))
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([Buffer.from('ab')], 0)
    await incoming.write([Buffer.from('ef')], 4)
    await assert.rejects(incoming.computeDigest(6), (error) => codeOf(error) === 'STORE_FAILED')
    await assert.rejects(incoming.commit(6), (error) => codeOf(error) === 'STORE_FAILED')
    await incoming.write([Buffer.from('cd')], 2)
    await incoming.commit(6)
    await incoming.close()
    assert.deepEqual(await readBlob(fixture.store, digest), Buffer.from('abcdef'))
  })

  it('what lies below the front is not written again', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('abcdef'))
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([Buffer.from('abc')], 0)
    incoming.advance(3)
    await incoming.write([Buffer.from('XYZdef')], 0)
    assert.equal(await incoming.computeDigest(6), digest)
    await incoming.commit(6)
    await incoming.close()
    assert.deepEqual(await readBlob(fixture.store, digest), Buffer.from('abcdef'))
  })

  it('a kept body goes on where it was, also after a restart', async () => {
    await using fixture = await open()
    const bytes = randomBytes(50_000)
    const digest = digestOf(bytes)
    const first = await fixture.store.openIncoming(digest)
    await first.write([bytes.subarray(0, 10_000)], 0)
    await first.write([bytes.subarray(30_000, 40_000)], 30_000)
    await first.keep()
    const store = await fixture.reopen()
    const second = await store.openIncoming(digest)
    assert.deepEqual(second.held.toArray(), [
      { from: 0, to: 10_000 },
      { from: 30_000, to: 40_000 },
    ])
    await second.write([bytes.subarray(10_000, 30_000)], 10_000)
    await second.write([bytes.subarray(40_000)], 40_000)
    await second.commit(50_000)
    await second.close()
    assert.deepEqual(await readBlob(store, digest), bytes)
    assert.equal((await store.openIncoming(digest)).held.bytes, 0)
  })

  it('a dropped body leaves nothing for the next one', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('dropped'))
    const first = await fixture.store.openIncoming(digest)
    await first.write([Buffer.from('drop')], 0)
    await first.drop()
    const second = await fixture.store.openIncoming(digest)
    assert.equal(second.held.bytes, 0)
    await second.drop()
  })

  it('one body is open once; the next one waits for its end', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('once'))
    const first = await fixture.store.openIncoming(digest)
    await first.write([Buffer.from('once')], 0)
    await assert.rejects(fixture.store.openIncoming(digest), (error) => codeOf(error) === 'STORE_FAILED')
    const dropping = first.drop()
    const second = await fixture.store.openIncoming(digest)
    await dropping
    assert.equal(second.held.bytes, 0)
    await second.drop()
  })
}

function unverifiedTests(open: () => Promise<StoreFixture>): void {
  it('right bytes are confirmed where they are', async () => {
    await using fixture = await open()
    const bytes = randomBytes(200_000)
    const digest = digestOf(bytes)
    await fixture.plant(digest, bytes)
    const before = await fixture.store.statBlob(digest)
    const unverified = await fixture.store.openUnverified(digest)
    assert.ok(unverified !== undefined)
    assert.equal(unverified.held.bytes, 200_000)
    unverified.advance(200_000)
    assert.equal(await unverified.computeDigest(200_000), digest)
    const { stamp, durable } = await unverified.commit(200_000)
    assert.deepEqual(stamp, before)
    assert.equal(await durable, true)
    assert.deepEqual(await readAll(unverified, 200_000), bytes)
    await unverified.close()
    assert.deepEqual(await readBlob(fixture.store, digest), bytes)
  })

  it('wrong bytes are refused and moved aside', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('right'))
    await fixture.plant(digest, Buffer.from('wrong'))
    const unverified = await fixture.store.openUnverified(digest)
    assert.ok(unverified !== undefined)
    assert.notEqual(await unverified.computeDigest(5), digest)
    await assert.rejects(unverified.commit(5), (error) => codeOf(error) === 'STORE_FAILED')
    await unverified.drop()
    assert.equal(await fixture.store.statBlob(digest), undefined)
  })

  it('an ended verification leaves the bytes where they are', async () => {
    await using fixture = await open()
    const bytes = Buffer.from('left alone')
    await fixture.plant(digestOf(bytes), bytes)
    await (await fixture.store.openUnverified(digestOf(bytes)))?.keep()
    assert.deepEqual(await readBlob(fixture.store, digestOf(bytes)), bytes)
  })
}

function linkTests(open: () => Promise<StoreFixture>): void {
  it('a link is of one repository and one kind', async () => {
    await using fixture = await open()
    const { store } = fixture
    const digest = await storeBlob(store, Buffer.from('linked'))
    assert.equal(await store.readLink(alpine, 'blob', digest), 'absent')
    await store.writeLink(alpine, 'blob', digest)
    await store.writeLink(alpine, 'blob', digest)
    assert.equal(await store.readLink(alpine, 'blob', digest), 'linked')
    assert.equal(await store.readLink(alpine, 'manifest', digest), 'absent')
    assert.equal(await store.readLink(repository('library/debian'), 'blob', digest), 'absent')
    assert.equal(await (await fixture.reopen()).readLink(alpine, 'blob', digest), 'linked')
  })

  it('a link to bytes that are not here is refused', async () => {
    await using fixture = await open()
    const digest = digestOf(Buffer.from('nowhere'))
    await assert.rejects(fixture.store.writeLink(alpine, 'blob', digest), (error) => codeOf(error) === 'STORE_FAILED')
    assert.equal(await fixture.store.readLink(alpine, 'blob', digest), 'absent')
  })

  it('a revoked link stays revoked over a restart until it is written again; the bytes stay', async () => {
    await using fixture = await open()
    const digest = await storeBlob(fixture.store, Buffer.from('revoked'))
    await fixture.store.revokeLink(alpine, 'blob', digest)
    assert.equal(await fixture.store.readLink(alpine, 'blob', digest), 'absent')
    await fixture.store.writeLink(alpine, 'blob', digest)
    await fixture.store.revokeLink(alpine, 'blob', digest)
    const store = await fixture.reopen()
    assert.equal(await store.readLink(alpine, 'blob', digest), 'revoked')
    assert.equal((await store.statBlob(digest))?.size, 7)
    await store.writeLink(alpine, 'blob', digest)
    assert.equal(await store.readLink(alpine, 'blob', digest), 'linked')
  })
}

function manifestTests(open: () => Promise<StoreFixture>): void {
  it('a manifest comes back with its bytes and type, linked and as a blob', async () => {
    await using fixture = await open()
    const { stamp, durable } = await fixture.store.writeManifest(alpine, image)
    assert.equal(stamp.size, image.bytes.byteLength)
    assert.equal(await durable, true)
    const store = await fixture.reopen()
    const read = await store.readManifest(alpine, image.digest)
    assert.equal(read?.mediaType, OCI_MANIFEST)
    assert.deepEqual(Buffer.from(read.bytes), image.bytes)
    assert.equal(await store.readLink(alpine, 'manifest', image.digest), 'linked')
    assert.deepEqual(await store.statBlob(image.digest), stamp)
  })

  it('a type that the bytes do not tell is kept for the repository it came for', async () => {
    await using fixture = await open()
    const odd = manifestOf({ schemaVersion: 2, manifests: [] }, 'application/vnd.acme.thing.v1+json')
    await fixture.store.writeManifest(alpine, odd)
    const debian = repository('library/debian')
    await fixture.store.writeManifest(debian, { ...odd, mediaType: OCI_INDEX })
    assert.equal((await fixture.store.readManifest(alpine, odd.digest))?.mediaType, odd.mediaType)
    assert.equal((await fixture.store.readManifest(debian, odd.digest))?.mediaType, OCI_INDEX)
    await fixture.store.writeManifest(alpine, { ...odd, mediaType: OCI_INDEX })
    assert.equal((await fixture.store.readManifest(alpine, odd.digest))?.mediaType, OCI_INDEX)
  })

  it('the same manifest written twice keeps its stamp', async () => {
    await using fixture = await open()
    const first = await fixture.store.writeManifest(alpine, image)
    const second = await fixture.store.writeManifest(repository('library/other'), image)
    assert.deepEqual(second.stamp, first.stamp)
    assert.equal(await second.durable, true)
  })

  it('bytes under a wrong digest, and bytes over the limit, are not stored', async () => {
    await using fixture = await open()
    const wrong = { ...image, digest: digestOf(Buffer.from('other')) }
    await assert.rejects(fixture.store.writeManifest(alpine, wrong), (error) => codeOf(error) === 'STORE_FAILED')
    const bytes = Buffer.alloc(MAX_MANIFEST_BYTES + 1, 0x20)
    const large = { bytes, digest: digestOf(bytes), mediaType: OCI_MANIFEST }
    await assert.rejects(fixture.store.writeManifest(alpine, large), (error) => codeOf(error) === 'STORE_FAILED')
    await fixture.plant(large.digest, bytes)
    assert.equal(await fixture.store.readManifest(alpine, large.digest), undefined)
  })

  it('an absent manifest is undefined', async () => {
    await using fixture = await open()
    assert.equal(await fixture.store.readManifest(alpine, image.digest), undefined)
  })
}

function listingTests(open: () => Promise<StoreFixture>): void {
  it('a tag points at a linked manifest, moves, and goes', async () => {
    await using fixture = await open()
    const { store } = fixture
    const latest = tag('latest')
    await assert.rejects(store.writeTag(alpine, latest, image.digest), (error) => codeOf(error) === 'STORE_FAILED')
    assert.equal(await store.readTag(alpine, latest), undefined)
    await store.writeManifest(alpine, image)
    await store.writeTag(alpine, latest, image.digest)
    const next = manifestOf({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: {}, layers: [{}] }, OCI_MANIFEST)
    await store.writeManifest(alpine, next)
    await store.writeTag(alpine, latest, next.digest)
    assert.equal(await (await fixture.reopen()).readTag(alpine, latest), next.digest)
  })

  it('a tag remembers where it pointed, the last first', async () => {
    await using fixture = await open()
    const { store } = fixture
    const latest = tag('latest')
    const next = manifestOf({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: {}, layers: [{}] }, OCI_MANIFEST)
    assert.deepEqual(await store.listTagHistory(alpine, latest, 10), [])
    for (const manifest of [image, next]) {
      await store.writeManifest(alpine, manifest)
      await store.writeTag(alpine, latest, manifest.digest)
    }
    assert.deepEqual(await store.listTagHistory(alpine, latest, 10), [next.digest, image.digest])
    await store.writeTag(alpine, latest, image.digest)
    const reopened = await fixture.reopen()
    assert.deepEqual(await reopened.listTagHistory(alpine, latest, 10), [image.digest, next.digest])
    assert.deepEqual(await reopened.listTagHistory(alpine, latest, 1), [image.digest])
    assert.deepEqual(await reopened.listTagHistory(alpine, tag('other'), 10), [])
  })

  it('a removed tag is listed no more; its manifest stays', async () => {
    await using fixture = await open()
    const { store } = fixture
    await store.writeManifest(alpine, image)
    for (const name of ['b', 'a', '_x', 'B', '1.10', '1.9']) await store.writeTag(alpine, tag(name), image.digest)
    await store.removeTag(alpine, tag('a'))
    await store.removeTag(alpine, tag('never-there'))
    assert.deepEqual(await store.listTags(alpine), ['1.10', '1.9', 'B', '_x', 'b'])
    assert.equal(await store.readTag(alpine, tag('a')), undefined)
    assert.ok((await store.readManifest(alpine, image.digest)) !== undefined)
    assert.deepEqual(await store.listTags(repository('library/none')), [])
  })

  it('repositories with a manifest come in lexical order of the whole name, in pages', async () => {
    await using fixture = await open()
    const { store } = fixture
    const names = ['a', 'a-b', 'a-b/c', 'a.b', 'a/b', 'a/b/c/d', 'a0', 'b', 'library/alpine', 'z/z']
    for (const name of names.toReversed()) await store.writeManifest(repository(name), image)
    await store.writeLink(repository('only/blobs'), 'blob', image.digest)
    assert.deepEqual(await store.listRepositories({ limit: 100 }), names)
    for (const limit of [1, 2, 3]) {
      const paged: string[] = []
      for (let last: string | undefined; ;) {
        const page = await store.listRepositories({ limit, ...(last !== undefined && { last }) })
        assert.ok(page.length <= limit)
        if (page.length === 0) break
        paged.push(...page)
        last = page.at(-1)
      }
      assert.deepEqual(paged, names)
    }
    assert.deepEqual(await store.listRepositories({ last: 'a/a', limit: 2 }), ['a/b', 'a/b/c/d'])
    assert.deepEqual(await store.listRepositories({ limit: 0 }), [])
  })
}

function removalTests(open: () => Promise<StoreFixture>): void {
  it('a removed blob is gone for who comes later; who has it open reads on', async () => {
    await using fixture = await open()
    const { store } = fixture
    const bytes = randomBytes(50_000)
    const digest = await storeBlob(store, bytes)
    const blob = await store.openBlob(digest)
    assert.ok(blob !== undefined)
    const measured = await store.measureBlob(digest)
    assert.ok(measured !== undefined && measured >= 50_000)
    assert.equal(await store.removeBlob(digest), measured)
    assert.equal(await store.removeBlob(digest), 0)
    assert.equal(await store.openBlob(digest), undefined)
    assert.equal(await store.statBlob(digest), undefined)
    assert.equal(await store.measureBlob(digest), undefined)
    assert.deepEqual(await readAll(blob, blob.size), bytes)
    await blob.close()
    await storeBlob(store, bytes)
    assert.deepEqual(await readBlob(await fixture.reopen(), digest), bytes)
  })

  it('a removed link is gone, linked or revoked, with its type; the bytes and other links stay', async () => {
    await using fixture = await open()
    const { store } = fixture
    const odd = manifestOf({ schemaVersion: 2, manifests: [] }, 'application/vnd.acme.thing.v1+json')
    await store.writeManifest(alpine, odd)
    await store.writeManifest(repository('library/debian'), odd)
    await store.removeLink(alpine, 'manifest', odd.digest)
    await store.removeLink(alpine, 'manifest', odd.digest)
    assert.equal(await store.readLink(alpine, 'manifest', odd.digest), 'absent')
    assert.equal(await store.readLink(repository('library/debian'), 'manifest', odd.digest), 'linked')
    await store.writeManifest(alpine, { ...odd, mediaType: OCI_INDEX })
    assert.equal((await store.readManifest(alpine, odd.digest))?.mediaType, OCI_INDEX)
    await store.revokeLink(alpine, 'manifest', odd.digest)
    await store.removeLink(alpine, 'manifest', odd.digest)
    await store.flush()
    const reopened = await fixture.reopen()
    assert.equal(await reopened.readLink(alpine, 'manifest', odd.digest), 'absent')
    assert.ok((await reopened.statBlob(odd.digest)) !== undefined)
    assert.deepEqual(await reopened.listRepositories({ limit: 10 }), ['library/debian'])
  })

  it('every blob is listed once, in order, with what it takes of the disk', async () => {
    await using fixture = await open()
    const { store } = fixture
    assert.deepEqual(await Array.fromAsync(store.listBlobs()), [])
    const digests = await Promise.all(
      Array.from({ length: 40 }, (_, index) => storeBlob(store, Buffer.from(`blob ${index}`))),
    )
    digests.push(await storeBlob(store, Buffer.from('other'), digestOf(Buffer.from('other'), 'sha512')))
    await storeBlob(store, Buffer.alloc(0))
    const entries = await Array.fromAsync(store.listBlobs())
    assert.deepEqual(
      entries.map(({ digest }) => digest),
      [...digests, digestOf(Buffer.alloc(0))].toSorted(),
    )
    for (const { digest, diskBytes, size, mtimeMs } of entries) {
      assert.equal(diskBytes, await store.measureBlob(digest))
      assert.deepEqual(await store.statBlob(digest), { size, mtimeMs })
    }
  })

  it('blob links of a repository are listed, and repositories with nothing else when they are asked for', async () => {
    await using fixture = await open()
    const { store } = fixture
    const one = await storeBlob(store, Buffer.from('one'))
    const two = await storeBlob(store, Buffer.from('two'))
    await store.writeLink(repository('only/blobs'), 'blob', one)
    await store.writeLink(repository('only/blobs'), 'blob', two)
    await store.writeManifest(repository('all/revoked'), image)
    await store.revokeLink(repository('all/revoked'), 'manifest', image.digest)
    const links = await Array.fromAsync(store.listBlobLinks(repository('only/blobs')))
    assert.deepEqual(links.toSorted(), [one, two].toSorted())
    assert.deepEqual(await store.listRepositories({ limit: 9 }), [])
    assert.deepEqual(await store.listRepositories({ limit: 9, any: true }), ['all/revoked', 'only/blobs'])
  })

  it('the last use is remembered over a restart, also of a revoked manifest', async () => {
    await using fixture = await open()
    await fixture.store.writeManifest(alpine, image)
    const at = Date.UTC(2020, 1, 2)
    await fixture.store.touchLink(alpine, image.digest, at)
    await fixture.store.touchLink(alpine, digestOf(Buffer.from('absent')), at)
    const store = await fixture.reopen()
    assert.deepEqual(await store.listRevisions(alpine), [{ digest: image.digest, isRevoked: false, usedAt: at }])
    await store.revokeLink(alpine, 'manifest', image.digest)
    await store.touchLink(alpine, image.digest, at + 1000)
    assert.deepEqual(await store.listRevisions(alpine), [{ digest: image.digest, isRevoked: true, usedAt: at + 1000 }])
  })

  it('interrupted bodies are dropped beyond the bounds, never one that is being written', async () => {
    await using fixture = await open()
    const { store } = fixture
    const bodies = [randomBytes(20_000), randomBytes(30_000)]
    for (const bytes of bodies) {
      const incoming = await store.openIncoming(digestOf(bytes))
      await incoming.write([bytes.subarray(0, 10_000)], 0)
      await incoming.keep()
    }
    const written = await store.openIncoming(digestOf(Buffer.from('whole')))
    await written.write([Buffer.from('who')], 0)
    const unlimited = { maxBytes: Infinity, maxAgeMs: Infinity }
    assert.ok((await store.trimLeftovers(unlimited)) >= 20_000)
    assert.equal(await store.trimLeftovers({ maxBytes: 0, maxAgeMs: Infinity }), 0)
    assert.equal((await store.openIncoming(digestOf(bodies[0] ?? Buffer.alloc(0)))).held.bytes, 0)
    await written.write([Buffer.from('le')], 3)
    await written.commit(5)
    await written.close()
    assert.deepEqual(await readBlob(store, digestOf(Buffer.from('whole'))), Buffer.from('whole'))
  })

  it('pins are kept with the folder', async () => {
    await using fixture = await open()
    assert.deepEqual(await fixture.store.readPins(), [])
    await fixture.store.writePins(['acme/**', 'library/alpine:3.20'])
    assert.deepEqual(await (await fixture.reopen()).readPins(), ['acme/**', 'library/alpine:3.20'])
  })
}
