/**
 * The embedded store: one namespace in one folder, in the layout of a stock registry. Any file in it may vanish or
 * change at any time by somebody's hand; whatever is not there is simply absent. Reads create nothing.
 */
import { lstat, rm, statfs, utimes, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { systemClock, type Clock } from '../../async/clock.ts'
import { GatewayError } from '../../errors.ts'
import { algorithmOf, digestOf, type Digest } from '../../oci/digest.ts'
import { MAX_MANIFEST_BYTES, deriveMediaType, type Manifest } from '../../oci/manifest.ts'
import type { Tag } from '../../oci/reference.ts'
import type { Repository } from '../../oci/repository.ts'
import { INCOMING, PINS, blobPath, incomingPath, mapPath, notePath, quarantinePath } from '../layout.ts'
import type {
  BlobEntry,
  Committed,
  FileStamp,
  Incoming,
  LeftoverBounds,
  LinkKind,
  LinkState,
  Revision,
  Store,
  StoredBlob,
} from '../store.ts'
import { loadBootId } from './boot-id.ts'
import { SystemDisk, type Disk } from './disk.ts'
import { isAbsence, orAbsent, storeError } from './fs-error.ts'
import { GroupCommit } from './group-commit.ts'
import type { Hasher } from './hasher.ts'
import { FsIncoming } from './incoming.ts'
import { Links } from './links.ts'
import {
  listBlobLinks,
  listBlobs,
  listRepositories,
  listRevisions,
  listTagHistory,
  listTags,
  type ListRepositoriesOptions,
} from './listing.ts'
import { readPins, writePins } from './pins.ts'
import { sweepLeftovers, sweepQuarantine, trimBodies } from './recover.ts'
import { readSmallFile, removeFile, renameInto, writeSmallFile, type SmallFileWriter } from './small-file.ts'
import { FsStoredBlob, diskBytesOf, isPlausible, stampOf } from './stored-blob.ts'
import { UnverifiedBlob } from './unverified.ts'

export interface FsStoreOptions {
  /** The namespace's folder; created with the first stored bytes. */
  readonly root: string
  /** Shared by all stores of the process; closed by its owner. */
  readonly hasher: Hasher
  /** Default: the real one. Shared by all stores, so that its syncs queue in one lane. */
  readonly disk?: Disk
  /** Bounds of what interrupted bodies and quarantined bytes may take. Default: 10 GiB and 7 days each. */
  readonly leftovers?: LeftoverBounds
  readonly clock?: Clock
  /** Runs once before the first file is created, in a root that may not be there yet. */
  readonly onFirstWrite?: () => Promise<void>
}

const DEFAULT_LEFTOVERS: LeftoverBounds = { maxBytes: 10 * 1024 ** 3, maxAgeMs: 7 * 24 * 3_600_000 }

interface OpenBody {
  readonly body: Promise<FsIncoming>
  readonly freed: Promise<void>
}

export class FsStore implements Store {
  readonly #root: string
  readonly #options: FsStoreOptions
  readonly #bounds: LeftoverBounds
  readonly #bootId: string | undefined
  readonly #clock: Clock
  readonly #disk: Disk
  readonly #group: GroupCommit
  readonly #writer: SmallFileWriter
  readonly #links: Links
  /** Bodies on their way in, until they are committed, kept or dropped: at most one per digest. */
  readonly #open = new Map<Digest, OpenBody>()
  #firstWrite: Promise<void> | undefined

  private constructor(options: FsStoreOptions, bootId: string | undefined) {
    this.#options = options
    this.#bootId = bootId
    this.#root = options.root
    this.#bounds = options.leftovers ?? DEFAULT_LEFTOVERS
    this.#clock = options.clock ?? systemClock
    this.#disk = options.disk ?? new SystemDisk()
    this.#group = new GroupCommit(this.#disk, discardUnsynced)
    this.#writer = {
      disk: this.#disk,
      temporaryFolder: join(this.#root, INCOMING),
      createFolder: (path) => this.#createFolder(path),
    }
    this.#links = new Links({ root: this.#root, writer: this.#writer, group: this.#group })
  }

  /** Opens the namespace in `root`, after removing what an earlier run left and cannot be used. Creates nothing. */
  static async open(options: FsStoreOptions): Promise<FsStore> {
    const bootId = await loadBootId()
    const store = new FsStore(options, bootId)
    await sweepLeftovers(store.#root, { bounds: store.#bounds, now: store.#clock.now(), bootId })
    return store
  }

  openBlob(digest: Digest): Promise<StoredBlob | undefined> {
    return FsStoredBlob.open(digest, this.#path(blobPath(digest)))
  }

  async statBlob(digest: Digest): Promise<FileStamp | undefined> {
    const path = this.#path(blobPath(digest))
    const stat = await orAbsent('look up', path, lstat(path))
    return stat?.isFile() === true && isPlausible(digest, stat.size) ? stampOf(stat) : undefined
  }

  readLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<LinkState> {
    return this.#links.read(repository, kind, digest)
  }

  writeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    return this.#links.write(repository, kind, digest)
  }

  revokeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    return this.#links.revoke(repository, kind, digest)
  }

  async readManifest(repository: Repository, digest: Digest): Promise<Manifest | undefined> {
    const [bytes, kept] = await Promise.all([
      readSmallFile(this.#path(blobPath(digest)), MAX_MANIFEST_BYTES),
      this.#links.readMediaType(repository, digest),
    ])
    if (bytes === undefined || !isPlausible(digest, bytes.byteLength)) return undefined
    const mediaType = kept ?? deriveMediaType(bytes)
    return mediaType === undefined ? undefined : { digest, mediaType, bytes }
  }

  async writeManifest(repository: Repository, manifest: Manifest): Promise<Committed> {
    const { digest, bytes, mediaType } = manifest
    if (bytes.byteLength > MAX_MANIFEST_BYTES) {
      throw new GatewayError(
        'STORE_FAILED',
        `store ${repository}@${digest}: ${bytes.byteLength} bytes, over the limit of ${MAX_MANIFEST_BYTES}`,
      )
    }
    if (digestOf(bytes, algorithmOf(digest)) !== digest) {
      throw new GatewayError('STORE_FAILED', `store ${repository}@${digest}: the bytes are not what the digest says`)
    }
    const committed = await this.#writeManifestBytes(digest, bytes)
    await this.#links.writeMediaType(repository, digest, deriveMediaType(bytes) === mediaType ? undefined : mediaType)
    await this.#links.write(repository, 'manifest', digest)
    return committed
  }

  readTag(repository: Repository, tag: Tag): Promise<Digest | undefined> {
    return this.#links.readTag(repository, tag)
  }

  writeTag(repository: Repository, tag: Tag, digest: Digest): Promise<void> {
    return this.#links.writeTag(repository, tag, digest)
  }

  removeTag(repository: Repository, tag: Tag): Promise<void> {
    return this.#links.removeTag(repository, tag)
  }

  listTagHistory(repository: Repository, tag: Tag, limit: number): Promise<Digest[]> {
    return listTagHistory(this.#root, repository, tag, limit)
  }

  listTags(repository: Repository): Promise<Tag[]> {
    return listTags(this.#root, repository)
  }

  listRevisions(repository: Repository): Promise<Revision[]> {
    return listRevisions(this.#root, repository)
  }

  listRepositories(options: ListRepositoriesOptions): Promise<Repository[]> {
    return listRepositories(this.#root, options)
  }

  async openIncoming(digest: Digest): Promise<Incoming> {
    for (let open = this.#open.get(digest); open !== undefined; open = this.#open.get(digest)) {
      const { isEnding } = await open.body.catch(() => ({ isEnding: true }))
      if (!isEnding)
        throw new GatewayError('STORE_FAILED', `open ${this.#path(incomingPath(digest))}: it is open already`)
      await open.freed
    }
    const freed = Promise.withResolvers<void>()
    const onFree = (): void => {
      this.#open.delete(digest)
      freed.resolve()
    }
    const body = this.#openBody(digest, onFree)
    this.#open.set(digest, { body, freed: freed.promise })
    body.catch(onFree)
    return body
  }

  openUnverified(digest: Digest): Promise<Incoming | undefined> {
    const path = this.#path(blobPath(digest))
    const quarantine = (): Promise<void> => this.quarantine(digest)
    return UnverifiedBlob.open({ digest, path, group: this.#group, hasher: this.#options.hasher, quarantine })
  }

  async quarantine(digest: Digest): Promise<void> {
    const from = this.#path(blobPath(digest))
    const to = this.#path(quarantinePath(digest))
    const now = this.#clock.now()
    try {
      await lstat(from)
      await renameInto(this.#writer, from, to)
      await utimes(to, now / 1000, now / 1000) // its age here counts, not the blob's
    } catch (error) {
      if (isAbsence(error)) return
      throw storeError('quarantine', from, error)
    }
    await sweepQuarantine(this.#root, this.#bounds, now)
  }

  touchLink(repository: Repository, manifest: Digest, at: number): Promise<void> {
    return this.#links.touch(repository, manifest, at)
  }

  removeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    return this.#links.remove(repository, kind, digest)
  }

  listBlobLinks(repository: Repository): AsyncIterable<Digest> {
    return listBlobLinks(this.#root, repository)
  }

  async removeBlob(digest: Digest): Promise<number> {
    const path = this.#path(blobPath(digest))
    const stat = await orAbsent('look up', path, lstat(path))
    if (stat === undefined) return 0
    await removeFile(path)
    await this.#group.removeFolder(dirname(path))
    // Bytes with a second name stay where they are.
    return stat.nlink > 1 ? 0 : diskBytesOf(stat)
  }

  async measureBlob(digest: Digest): Promise<number | undefined> {
    const path = this.#path(blobPath(digest))
    const stat = await orAbsent('look up', path, lstat(path))
    return stat?.isFile() === true ? diskBytesOf(stat) : undefined
  }

  listBlobs(): AsyncIterable<BlobEntry> {
    return listBlobs(this.#root)
  }

  async trimLeftovers(bounds: LeftoverBounds): Promise<number> {
    const now = this.#clock.now()
    const bodies = await trimBodies({
      root: this.#root,
      bounds,
      now,
      isOpen: (digest) => this.#open.has(digest),
      // Opening takes the body as ours, so that nobody can begin to write into a file that is being removed.
      drop: async (digest) => (await this.openIncoming(digest)).drop(),
    })
    return bodies + (await sweepQuarantine(this.#root, bounds, now))
  }

  readPins(): Promise<string[]> {
    return readPins(this.#path(PINS))
  }

  async writePins(pins: readonly string[]): Promise<void> {
    await writePins(this.#writer, this.#path(PINS), pins)
    void this.#group.add(this.#path(PINS), 'name')
  }

  async freeBytes(): Promise<number> {
    for (let path = this.#root; ; path = dirname(path)) {
      const stat = await orAbsent('ask free space of', path, statfs(path))
      if (stat !== undefined) return stat.bavail * stat.bsize
      if (path === dirname(path))
        throw new GatewayError('STORE_FAILED', `ask free space of ${this.#root}: no such folder`)
    }
  }

  flush(): Promise<void> {
    return this.#group.flush()
  }

  /** Keeps bodies that are still open, and waits until all that was committed is durable. */
  async close(): Promise<void> {
    const open = [...this.#open.values()]
    await Promise.allSettled(open.map(async ({ body, freed }) => (await body).keep().then(() => freed)))
    await this.#group.flush()
  }

  #openBody(digest: Digest, onFree: () => void): Promise<FsIncoming> {
    return FsIncoming.open({
      digest,
      path: this.#path(incomingPath(digest)),
      mapPath: this.#path(mapPath(digest)),
      notePath: this.#path(notePath(digest)),
      bootId: this.#bootId,
      finalPath: this.#path(blobPath(digest)),
      writer: this.#writer,
      group: this.#group,
      hasher: this.#options.hasher,
      onFree,
    })
  }

  /** Gives verified bytes their name. The same bytes there already stay, so that their stamp does. */
  async #writeManifestBytes(digest: Digest, bytes: Uint8Array): Promise<Committed> {
    const path = this.#path(blobPath(digest))
    const present = await readSmallFile(path, MAX_MANIFEST_BYTES)
    await this.#group.room()
    if (present === undefined || !present.equals(bytes)) await writeSmallFile(this.#writer, path, bytes)
    const stat = await lstat(path).catch((error: unknown) => Promise.reject(storeError('look up', path, error)))
    return { stamp: stampOf(stat), durable: this.#group.add(path, 'bytes') }
  }

  async #createFolder(path: string): Promise<void> {
    this.#firstWrite ??= this.#prepareRoot()
    await this.#firstWrite
    await this.#group.createFolder(path)
  }

  async #prepareRoot(): Promise<void> {
    try {
      await this.#options.onFirstWrite?.()
    } catch (error) {
      this.#firstWrite = undefined
      throw error
    }
  }

  #path(relative: string): string {
    return join(this.#root, relative)
  }
}

/** Removes bytes that could not be synced, unless another file took their name since. */
async function discardUnsynced(path: string, file: FileHandle): Promise<void> {
  const [named, written] = await Promise.all([lstat(path), file.stat()])
  if (named.ino === written.ino) await rm(path, { force: true })
}
