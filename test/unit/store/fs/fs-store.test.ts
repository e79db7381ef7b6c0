import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, readdir, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { after, describe, it } from 'node:test'
import { codeOf } from '../../../../src/errors.ts'
import { digestOf, hexOf, type Digest } from '../../../../src/oci/digest.ts'
import { DOCKER_MANIFEST } from '../../../../src/oci/media-types.ts'
import { SystemDisk } from '../../../../src/store/fs/disk.ts'
import { FsStore, type FsStoreOptions } from '../../../../src/store/fs/fs-store.ts'
import { Hasher } from '../../../../src/store/fs/hasher.ts'
import { blobPath, incomingPath, linkPath, mapPath, quarantinePath, revokedPath } from '../../../../src/store/layout.ts'
import {
  manifestOf,
  readBlob,
  repository,
  storeBlob,
  storeConformance,
  tag,
  type StoreFixture,
} from '../../../conformance/store.ts'
import { temporaryFolder } from '../../../support/temporary-folder.ts'

const alpine = repository('library/alpine')

// One thread for all fixtures, as one process has: starting it costs more than most of these tests.
const hasher = new Hasher()
after(() => hasher.close())

interface FsFixture extends StoreFixture {
  readonly root: string
}

async function openFixture(options: Partial<FsStoreOptions> = {}): Promise<FsFixture> {
  const folder = await temporaryFolder()
  const root = join(folder.path, 'docker.io')
  const openStore = (): Promise<FsStore> => FsStore.open({ root, hasher, ...options })
  let store = await openStore()
  return {
    root,
    store,
    async reopen() {
      await store.close()
      store = await openStore()
      return store
    },
    plant: (digest, bytes) => plant(root, blobPath(digest), bytes),
    async [Symbol.asyncDispose]() {
      await store.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

async function plant(root: string, path: string, bytes: string | Uint8Array): Promise<void> {
  await mkdir(dirname(join(root, path)), { recursive: true })
  await writeFile(join(root, path), bytes)
}

/** Every file below `root` with its content as text. */
async function treeOf(root: string): Promise<Record<string, string>> {
  const tree: Record<string, string> = {}
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    tree[path.slice(root.length + 1)] = await readFile(path, 'latin1')
  }
  return tree
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

storeConformance('fs', () => openFixture())

describe('fs store: layout', () => {
  it('writes exactly the tree of a stock registry in proxy mode', async () => {
    await using fixture = await openFixture()
    const { store, root } = fixture
    const layer = Buffer.from('a layer')
    const image = manifestOf({ schemaVersion: 2, mediaType: DOCKER_MANIFEST, config: {}, layers: [] }, DOCKER_MANIFEST)
    const layerDigest = await storeBlob(store, layer)
    await store.writeManifest(alpine, image)
    await store.writeLink(alpine, 'blob', layerDigest)
    await store.writeTag(alpine, tag('3.20'), image.digest)
    await store.close()
    const blobs = 'docker/registry/v2/blobs/sha256'
    const repo = 'docker/registry/v2/repositories/library/alpine'
    const [layerHex, imageHex] = [hexOf(layerDigest), hexOf(image.digest)]
    assert.deepEqual(await treeOf(root), {
      [`${blobs}/${layerHex.slice(0, 2)}/${layerHex}/data`]: 'a layer',
      [`${blobs}/${imageHex.slice(0, 2)}/${imageHex}/data`]: Buffer.from(image.bytes).toString(),
      [`${repo}/_layers/sha256/${layerHex}/link`]: layerDigest,
      [`${repo}/_manifests/revisions/sha256/${imageHex}/link`]: image.digest,
      [`${repo}/_manifests/tags/3.20/current/link`]: image.digest,
      [`${repo}/_manifests/tags/3.20/index/sha256/${imageHex}/link`]: image.digest,
    })
  })

  it('files are 0644 and folders 0755 under the usual umask, so that another user can read them', async () => {
    await using fixture = await openFixture()
    const digest = await storeBlob(fixture.store, Buffer.from('readable'))
    await fixture.store.writeLink(alpine, 'blob', digest)
    const data = join(fixture.root, blobPath(digest))
    const mask =
      0o777 & ~Number.parseInt(/^Umask:\s*(\d+)$/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1] ?? '22', 8)
    assert.equal((await stat(data)).mode & 0o777, 0o644 & mask)
    assert.equal((await stat(join(fixture.root, linkPath(alpine, 'blob', digest)))).mode & 0o777, 0o644 & mask)
    assert.equal((await stat(dirname(data))).mode & 0o777, 0o755 & mask)
  })

  it('reads, and a body that never gets a byte, create nothing', async () => {
    await using fixture = await openFixture()
    const { store, root } = fixture
    const digest = digestOf(Buffer.from('x'))
    await store.openBlob(digest)
    await store.readLink(alpine, 'blob', digest)
    await store.readManifest(alpine, digest)
    await store.listTags(alpine)
    await store.listRepositories({ limit: 10 })
    await store.revokeLink(alpine, 'blob', digest)
    await store.removeTag(alpine, tag('x'))
    await store.quarantine(digest)
    await (await store.openIncoming(digest)).drop()
    await (await store.openIncoming(digest)).keep()
    await assert.rejects(store.writeLink(alpine, 'blob', digest))
    assert.equal(await exists(root), false)
  })

  it('a revocation stands above a link that somebody else wrote beside it', async () => {
    await using fixture = await openFixture()
    const digest = await storeBlob(fixture.store, Buffer.from('y'))
    await fixture.store.writeLink(alpine, 'blob', digest)
    await fixture.store.revokeLink(alpine, 'blob', digest)
    assert.equal(await readFile(join(fixture.root, revokedPath(alpine, 'blob', digest)), 'latin1'), digest)
    await plant(fixture.root, linkPath(alpine, 'blob', digest), digest)
    assert.equal(await fixture.store.readLink(alpine, 'blob', digest), 'revoked')
  })

  it('an empty or cut link is no link; a tag link with a newline points nowhere', async () => {
    await using fixture = await openFixture()
    const digest = await storeBlob(fixture.store, Buffer.from('z'))
    for (const content of ['', digest.slice(0, 20), `${digest}\n`]) {
      await plant(fixture.root, linkPath(alpine, 'blob', digest), content)
      assert.equal(await fixture.store.readLink(alpine, 'blob', digest), 'absent')
    }
    await plant(
      fixture.root,
      'docker/registry/v2/repositories/library/alpine/_manifests/tags/t/current/link',
      `${digest}\n`,
    )
    assert.equal(await fixture.store.readTag(alpine, tag('t')), undefined)
  })

  it('foreign files, folders and symbolic links in the tree are passed over', async () => {
    await using fixture = await openFixture()
    const { store, root } = fixture
    const image = manifestOf({ schemaVersion: 2, mediaType: DOCKER_MANIFEST, config: {}, layers: [] }, DOCKER_MANIFEST)
    await store.writeManifest(alpine, image)
    await store.writeTag(alpine, tag('ok'), image.digest)
    const repositories = join(root, 'docker/registry/v2/repositories')
    await plant(root, 'docker/registry/v2/repositories/README', 'hello')
    await plant(root, 'docker/registry/v2/repositories/library/alpine/_manifests/tags/file', 'x')
    await mkdir(join(repositories, 'library/alpine/_manifests/tags/half'), { recursive: true })
    await mkdir(join(repositories, 'UPPER/_manifests/revisions/sha256/zz'), { recursive: true })
    await mkdir(join(repositories, 'lost+found'), { recursive: true })
    await mkdir(join(repositories, 'library/alpine/_uploads/1'), { recursive: true })
    await symlink(join(repositories, 'library'), join(repositories, 'looped'))
    assert.deepEqual(await store.listRepositories({ limit: 10 }), ['library/alpine'])
    assert.deepEqual(await store.listTags(alpine), ['ok'])
  })

  it('a symbolic link under a blob name is not followed, and replaced by the next fill', async () => {
    await using fixture = await openFixture()
    const bytes = Buffer.from('secret of somebody else')
    const digest = digestOf(bytes)
    const outside = join(dirname(fixture.root), 'outside')
    await writeFile(outside, bytes)
    await mkdir(dirname(join(fixture.root, blobPath(digest))), { recursive: true })
    await symlink(outside, join(fixture.root, blobPath(digest)))
    assert.equal(await fixture.store.openBlob(digest), undefined)
    assert.equal(await fixture.store.openUnverified(digest), undefined)
    assert.equal(await fixture.store.statBlob(digest), undefined)
    await storeBlob(fixture.store, bytes)
    assert.deepEqual(await readBlob(fixture.store, digest), bytes)
    assert.equal(await readFile(outside, 'latin1'), bytes.toString())
  })
})

describe('fs store: open files', () => {
  it('are none after commit and close, keep, drop, a failed open, and a read', async () => {
    await using fixture = await openFixture()
    const { store } = fixture
    await storeBlob(store, Buffer.from('starts the hash thread'))
    await store.flush()
    const openFiles = async (): Promise<number> => (await readdir('/proc/self/fd')).length
    const before = await openFiles()
    for (let n = 0; n < 20; n++) {
      const bytes = Buffer.from(`body ${n}`)
      const digest = await storeBlob(store, bytes)
      await readBlob(store, digest)
      await store.openBlob(digestOf(Buffer.from('absent')))
      const other = await store.openIncoming(digestOf(Buffer.from(`other ${n}`)))
      await other.write([bytes], 0)
      await (n % 2 === 0 ? other.keep() : other.drop())
      const unverified = await store.openUnverified(digest)
      if (n % 3 === 0) await unverified?.keep()
      else if (n % 3 === 1) await unverified?.drop()
      else {
        await unverified?.commit(bytes.byteLength)
        await unverified?.close()
      }
    }
    await store.flush()
    // The hash thread closes its own a moment after it was told to.
    for (let tries = 0; (await openFiles()) > before && tries < 100; tries++)
      await new Promise((resolve) => setTimeout(resolve, 10))
    assert.ok((await openFiles()) <= before, `${await openFiles()} files are open, ${before} were`)
  })
})

describe('fs store: files that vanish or change', () => {
  it('a blob truncated under an open reader ends in an error, not in silence', async () => {
    await using fixture = await openFixture()
    const digest = await storeBlob(fixture.store, randomBytes(10_000))
    const blob = await fixture.store.openBlob(digest)
    await truncate(join(fixture.root, blobPath(digest)), 100)
    await assert.rejects(
      blob?.read(Buffer.alloc(10), 5_000) ?? Promise.resolve(),
      (error) => codeOf(error) === 'STORE_FAILED',
    )
    await blob?.close()
  })

  it('a blob deleted by hand is absent though its link stands, and comes back whole', async () => {
    await using fixture = await openFixture()
    const bytes = randomBytes(5_000)
    const digest = await storeBlob(fixture.store, bytes)
    await fixture.store.writeLink(alpine, 'blob', digest)
    await rm(join(fixture.root, blobPath(digest)))
    assert.equal(await fixture.store.openBlob(digest), undefined)
    await storeBlob(fixture.store, bytes)
    assert.deepEqual(await readBlob(fixture.store, digest), bytes)
  })

  it('the whole folder may vanish between two writes', async () => {
    await using fixture = await openFixture()
    await storeBlob(fixture.store, Buffer.from('one'))
    await fixture.store.flush()
    await rm(fixture.root, { recursive: true })
    const digest = await storeBlob(fixture.store, Buffer.from('two'))
    assert.deepEqual(await readBlob(fixture.store, digest), Buffer.from('two'))
  })

  it('a file changed while it is verified is not confirmed', async () => {
    await using fixture = await openFixture()
    const bytes = randomBytes(5_000)
    const digest = digestOf(bytes)
    await fixture.plant(digest, bytes)
    const unverified = await fixture.store.openUnverified(digest)
    assert.equal(await unverified?.computeDigest(5_000), digest)
    await utimes(join(fixture.root, blobPath(digest)), 1, 1)
    await assert.rejects(unverified?.commit(5_000) ?? Promise.resolve(), (error) => codeOf(error) === 'STORE_FAILED')
    await unverified?.drop()
  })

  it('quarantined bytes stand in quarantine under their digest, for a bounded time', async () => {
    const clock = { now: () => Date.now() }
    await using fixture = await openFixture({ clock, leftovers: { maxBytes: 10_000, maxAgeMs: 1_000_000 } })
    const digest = await storeBlob(fixture.store, randomBytes(6_000))
    const old = new Date(Date.now() - 50_000_000)
    await utimes(join(fixture.root, blobPath(digest)), old, old)
    await fixture.store.quarantine(digest)
    assert.equal((await stat(join(fixture.root, quarantinePath(digest)))).size, 6_000)
    const second = await storeBlob(fixture.store, randomBytes(6_000))
    await fixture.store.quarantine(second)
    assert.equal((await readdir(join(fixture.root, 'quarantine'))).length, 1)
    clock.now = () => Date.now() + 2_000_000
    await fixture.reopen()
    assert.deepEqual(await readdir(join(fixture.root, 'quarantine')), [])
  })
})

describe('fs store: what an earlier run left', () => {
  async function keepBody(fixture: FsFixture, digest: Digest, bytes: Uint8Array): Promise<void> {
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([bytes], 0)
    await incoming.keep()
  }

  it('bodies without a map, maps without a body, half-written files and foreign names are deleted at open', async () => {
    await using fixture = await openFixture()
    const kept = digestOf(Buffer.from('whole body'))
    await keepBody(fixture, kept, Buffer.from('whole'))
    const orphan = digestOf(Buffer.from('orphan'))
    await plant(fixture.root, incomingPath(orphan), 'orphan')
    await plant(fixture.root, mapPath(digestOf(Buffer.from('no body'))), '{}')
    await plant(fixture.root, 'incoming/1234.tmp', 'half')
    await plant(fixture.root, 'incoming/foreign/file', 'x')
    await fixture.reopen()
    const names = (await readdir(join(fixture.root, 'incoming'))).sort()
    assert.deepEqual(
      names,
      [incomingPath(kept), mapPath(kept)].map((path) => path.slice('incoming/'.length)),
    )
  })

  it('a map that is damaged, of another digest, or longer than its body is not believed', async () => {
    await using fixture = await openFixture()
    const digest = digestOf(Buffer.from('0123456789'))
    const map = join(fixture.root, mapPath(digest))
    const spoil = async (change: (text: string) => string): Promise<number> => {
      await keepBody(fixture, digest, Buffer.from('01234'))
      await writeFile(map, change(await readFile(map, 'utf8')))
      const incoming = await fixture.store.openIncoming(digest)
      const { bytes } = incoming.held
      await incoming.drop()
      return bytes
    }
    assert.equal(await spoil((text) => text), 5)
    assert.equal(await spoil((text) => text.slice(0, -4)), 0)
    assert.equal(await spoil((text) => text.replace('[[0,5]]', '[[0,4]]')), 0)
    assert.equal(await spoil((text) => text.replace(digest, digestOf(Buffer.from('other')))), 0)
    assert.equal(await spoil((text) => text.replace('"version":1', '"version":2')), 0)
    await keepBody(fixture, digest, Buffer.from('01234'))
    await truncate(join(fixture.root, incomingPath(digest)), 3)
    assert.equal((await fixture.store.openIncoming(digest)).held.bytes, 0)
  })

  it('kept bodies are bounded in bytes, oldest first, and in age', async () => {
    const clock = { now: () => Date.now() }
    await using fixture = await openFixture({ clock, leftovers: { maxBytes: 5_000, maxAgeMs: 3_600_000 } })
    const digests = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text)))
    for (const [index, digest] of digests.entries()) {
      await keepBody(fixture, digest, randomBytes(2_000))
      const at = Date.now() / 1000 - 100 + index
      await utimes(join(fixture.root, incomingPath(digest)), at, at)
    }
    await fixture.reopen()
    const left = await Promise.all(digests.map((digest) => exists(join(fixture.root, incomingPath(digest)))))
    assert.deepEqual(left, [false, true, true])
    clock.now = () => Date.now() + 4_000_000
    await fixture.reopen()
    assert.deepEqual(await readdir(join(fixture.root, 'incoming')), [])
  })
})

describe('fs store: a disk that fails', () => {
  class FaultyDisk extends SystemDisk {
    fail: Partial<Record<'write' | 'sync' | 'syncFolder' | 'rename', string>> = {}
    syncs = 0

    override async write(...call: Parameters<SystemDisk['write']>): Promise<number> {
      this.#check('write')
      return super.write(...call)
    }

    override async sync(...call: Parameters<SystemDisk['sync']>): Promise<void> {
      this.syncs++
      this.#check('sync')
      return super.sync(...call)
    }

    override async syncFolder(...call: Parameters<SystemDisk['syncFolder']>): Promise<void> {
      this.#check('syncFolder')
      return super.syncFolder(...call)
    }

    override async rename(...call: Parameters<SystemDisk['rename']>): Promise<void> {
      this.#check('rename')
      return super.rename(...call)
    }

    #check(operation: keyof FaultyDisk['fail']): void {
      const code = this.fail[operation]
      if (code !== undefined) throw Object.assign(new Error(`${code}: ${operation}`), { code })
    }
  }

  it('no space is STORE_FULL, another error STORE_FAILED with its cause, and the body goes on afterwards', async () => {
    const disk = new FaultyDisk()
    await using fixture = await openFixture({ disk })
    const bytes = Buffer.from('filling up')
    const incoming = await fixture.store.openIncoming(digestOf(bytes))
    for (const [errno, code] of [
      ['ENOSPC', 'STORE_FULL'],
      ['EDQUOT', 'STORE_FULL'],
      ['EIO', 'STORE_FAILED'],
    ] as const) {
      disk.fail = { write: errno }
      await assert.rejects(
        incoming.write([bytes], 0),
        (error: Error) => codeOf(error) === code && error.cause instanceof Error,
      )
    }
    assert.equal(incoming.held.bytes, 0)
    disk.fail = {}
    await incoming.write([bytes], 0)
    await incoming.commit(bytes.byteLength)
    await incoming.close()
    assert.deepEqual(await readBlob(fixture.store, digestOf(bytes)), bytes)
  })

  it('a failed rename leaves nothing under the final name, and a small file leaves no litter', async () => {
    const disk = new FaultyDisk()
    await using fixture = await openFixture({ disk })
    const bytes = Buffer.from('no rename')
    const image = manifestOf({ schemaVersion: 2, mediaType: DOCKER_MANIFEST, config: {}, layers: [] }, DOCKER_MANIFEST)
    const incoming = await fixture.store.openIncoming(digestOf(bytes))
    await incoming.write([bytes], 0)
    disk.fail = { rename: 'EIO' }
    await assert.rejects(incoming.commit(bytes.byteLength), (error) => codeOf(error) === 'STORE_FAILED')
    await assert.rejects(fixture.store.writeManifest(alpine, image), (error) => codeOf(error) === 'STORE_FAILED')
    await incoming.drop()
    assert.equal(await fixture.store.statBlob(digestOf(bytes)), undefined)
    assert.deepEqual(await readdir(join(fixture.root, 'incoming')), [])
  })

  it('bytes whose sync fails are visible, told not durable, never synced again, and discarded', async () => {
    const disk = new FaultyDisk()
    await using fixture = await openFixture({ disk })
    const bytes = Buffer.from('lost pages')
    const digest = digestOf(bytes)
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([bytes], 0)
    disk.fail = { sync: 'EIO' }
    const { durable } = await incoming.commit(bytes.byteLength)
    assert.equal(await durable, false)
    assert.equal(disk.syncs, 1)
    const target = Buffer.alloc(4)
    assert.equal(await incoming.read(target, 0), 4)
    await incoming.close()
    assert.equal(await fixture.store.statBlob(digest), undefined)
  })

  it('a folder that cannot be synced makes its blobs not durable', async () => {
    const disk = new FaultyDisk()
    await using fixture = await openFixture({ disk })
    const incoming = await fixture.store.openIncoming(digestOf(Buffer.from('names')))
    await incoming.write([Buffer.from('names')], 0)
    disk.fail = { syncFolder: 'EIO' }
    const { durable } = await incoming.commit(5)
    assert.equal(await durable, false)
    await incoming.close()
  })

  it('a body whose sync failed is not kept', async () => {
    const disk = new FaultyDisk()
    await using fixture = await openFixture({ disk })
    const digest = digestOf(Buffer.from('doubtful bytes'))
    const incoming = await fixture.store.openIncoming(digest)
    await incoming.write([Buffer.from('doubtful')], 0)
    disk.fail = { sync: 'EIO' }
    await assert.rejects(incoming.keep(), (error) => codeOf(error) === 'STORE_FAILED')
    disk.fail = {}
    assert.equal((await fixture.store.openIncoming(digest)).held.bytes, 0)
  })

  it('readers wait for the rename, not for the sync; many commits share a group', async () => {
    class SlowDisk extends SystemDisk {
      readonly released = Promise.withResolvers<void>()
      folders = 0
      override async sync(...call: Parameters<SystemDisk['sync']>): Promise<void> {
        await this.released.promise
        return super.sync(...call)
      }
      override async syncFolder(...call: Parameters<SystemDisk['syncFolder']>): Promise<void> {
        this.folders++
        return super.syncFolder(...call)
      }
    }
    const disk = new SlowDisk()
    await using fixture = await openFixture({ disk })
    const bodies = Array.from({ length: 20 }, (_, index) => Buffer.from(`body ${index}`))
    const syncs = await Promise.all(
      bodies.map(async (bytes) => {
        const incoming = await fixture.store.openIncoming(digestOf(bytes))
        await incoming.write([bytes], 0)
        const { durable } = await incoming.commit(bytes.byteLength)
        assert.deepEqual(await readBlob(fixture.store, digestOf(bytes)), bytes)
        return { durable, incoming }
      }),
    )
    const before = disk.folders
    disk.released.resolve()
    for (const { durable, incoming } of syncs) {
      assert.equal(await durable, true)
      await incoming.close()
    }
    // Each body has two folders of its own; alone it would also sync every folder above them.
    assert.ok(disk.folders - before < 4 * bodies.length, `${disk.folders - before} folders were synced`)
  })
})
