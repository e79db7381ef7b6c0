/**
 * The store port: where bytes live. One `Store` is one namespace (one upstream's root) and knows nothing of others.
 * What it holds under a final name was verified once, or came with a folder somebody else wrote: the ledger knows which.
 */
import type { ByteSource } from '../async/byte-source.ts'
import type { Intervals } from '../async/intervals.ts'
import type { Digest } from '../oci/digest.ts'
import type { Manifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'

/** `blob` links stand under `_layers`, `manifest` links under `_manifests/revisions`. */
export type LinkKind = 'blob' | 'manifest'
/** `revoked`: the upstream took the right back; the bytes stay. */
export type LinkState = 'linked' | 'revoked' | 'absent'

/** What identifies the stored file, so that a later change by somebody else shows. */
export interface FileStamp {
  readonly size: number
  readonly mtimeMs: number
}

/** A blob's file as listed. */
export interface BlobEntry extends FileStamp {
  readonly digest: Digest
  /** What the file takes of the disk, which is not its length. */
  readonly diskBytes: number
}

/** A manifest link as found. */
export interface Revision {
  readonly digest: Digest
  readonly isRevoked: boolean
  /** Epoch ms of the last use that {@link Store.touchLink} told, or of the link itself. */
  readonly usedAt: number
}

/** What interrupted bodies and quarantined bytes may take; of each kind the oldest go first. */
export interface LeftoverBounds {
  readonly maxBytes: number
  readonly maxAgeMs: number
}

/** A blob open for reading: survives its deletion. */
export interface StoredBlob extends ByteSource {
  readonly digest: Digest
  readonly stamp: FileStamp
}

/** What was given its final name. */
export interface Committed {
  readonly stamp: FileStamp
  /** Resolves once bytes and name survive a power cut; false when syncing failed. Never rejects. */
  readonly durable: Promise<boolean>
}

export interface Store {
  /** Opens a blob's bytes; undefined when they are not here. No proof of any right to them: see {@link readLink}. */
  openBlob(digest: Digest): Promise<StoredBlob | undefined>
  /** Size and time of a blob's file without opening it; undefined when it is not here. */
  statBlob(digest: Digest): Promise<FileStamp | undefined>

  readLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<LinkState>
  /** Records that `repository` may serve `digest`. The bytes must be here. Idempotent; lifts a revocation. */
  writeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void>
  /** Turns a link into a revoked one, for good until {@link writeLink}; nothing when there is none. The bytes stay. */
  revokeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void>

  /**
   * Reads a manifest's bytes, and its type as `repository` got it; undefined when the bytes are absent, too large, or of
   * no known type. The caller checks the hash, and by {@link readLink} the right.
   */
  readManifest(repository: Repository, digest: Digest): Promise<Manifest | undefined>
  /** Stores a verified manifest and links it to `repository`: bytes, type, then link. */
  writeManifest(repository: Repository, manifest: Manifest): Promise<Committed>

  readTag(repository: Repository, tag: Tag): Promise<Digest | undefined>
  /** Points `tag` at a manifest that is linked already; keeps the history under `index`. */
  writeTag(repository: Repository, tag: Tag, digest: Digest): Promise<void>
  /** Removes the tag's pointer; bytes and revision stay. */
  removeTag(repository: Repository, tag: Tag): Promise<void>
  /** Digests the tag points or pointed to, the one written last first, at most `limit`; not all need be here still. */
  listTagHistory(repository: Repository, tag: Tag, limit: number): Promise<Digest[]>
  /** Tags in lexical order. */
  listTags(repository: Repository): Promise<Tag[]>
  /** Manifests linked to `repository`, revoked ones too, in no given order. The ledger is rebuilt from this. */
  listRevisions(repository: Repository): Promise<Revision[]>
  /**
   * Repositories that hold at least one manifest link, in lexical order, after `last`, at most `limit`; with `any` also
   * those where every link is revoked, or of a blob.
   */
  listRepositories(options: {
    readonly last?: string
    readonly limit: number
    readonly any?: boolean
  }): Promise<Repository[]>

  /** Opens a body on its way in, with the intervals an earlier run left. At most one per digest is open at a time. */
  openIncoming(digest: Digest): Promise<Incoming>
  /**
   * Opens bytes that stand under the final name but are not verified as an `Incoming` that holds all of them: its
   * `commit` only confirms them, its `drop` moves them to quarantine. Undefined when they are not here.
   */
  openUnverified(digest: Digest): Promise<Incoming | undefined>
  /** Moves a blob that is not what its name says aside, so that it is fetched again. */
  quarantine(digest: Digest): Promise<void>

  /** Remembers a manifest's last use (epoch ms) in the folder itself, so that it outlives the ledger. */
  touchLink(repository: Repository, manifest: Digest, at: number): Promise<void>
  /** Removes a link, revoked or not, and what stands beside it. Durable after {@link flush}. The bytes stay. */
  removeLink(repository: Repository, kind: LinkKind, digest: Digest): Promise<void>
  /** Repositories' blobs by link, in no given order. */
  listBlobLinks(repository: Repository): AsyncIterable<Digest>

  /** Removes a blob's bytes; who has it open reads on. Resolves to what it took of the disk: 0 when it was not here. */
  removeBlob(digest: Digest): Promise<number>
  /** What a blob takes of the disk; undefined when it is not here. */
  measureBlob(digest: Digest): Promise<number | undefined>
  /** Every blob, in lexical order of its digest, as the folder is walked: any number, never all in memory. */
  listBlobs(): AsyncIterable<BlobEntry>
  /** Drops interrupted bodies and quarantined bytes beyond `bounds`; resolves to what the rest takes of the disk. */
  trimLeftovers(bounds: LeftoverBounds): Promise<number>

  /** Patterns of images that are never evicted. Rejects when they are there and cannot be read: then nothing may go. */
  readPins(): Promise<string[]>
  writePins(pins: readonly string[]): Promise<void>

  /** Bytes free on the disk for us. */
  freeBytes(): Promise<number>
  /** Waits until all that was committed so far is durable. */
  flush(): Promise<void>
  close(): Promise<void>
}

/**
 * A body on its way in. Written in any order; readable at once. Ends by exactly one of `commit`, `keep`, `drop`.
 * Errors: `STORE_FULL` (no space), `STORE_FAILED`.
 */
export interface Incoming {
  readonly digest: Digest
  /** What is on disk. Grows by `write`; shared, not a copy. */
  readonly held: Intervals
  /**
   * Writes the chunks, one after another, from `offset` on and adds them to `held`; bytes below the front told by
   * `advance` stay as they are.
   */
  write(chunks: readonly Uint8Array[], offset: number): Promise<void>
  /** Reads what is held at `position`, up to the length of `target`; the caller knows that it is held. */
  read(target: Uint8Array, position: number): Promise<number>
  /** Says that bytes `[0, front)` are final: they are hashed in the background, read back from the file. */
  advance(front: number): void
  /** Resolves to the digest of the first `size` bytes once all are hashed; `advance(size)` is implied. */
  computeDigest(size: number): Promise<Digest>
  /**
   * Gives bytes of length `size` their final name. Fails, changing nothing, unless `computeDigest(size)` gives
   * {@link digest}. Visible to `openBlob` when it resolves; durable later. `read` goes on working until `close`.
   */
  commit(size: number): Promise<Committed>
  /** Closes, keeping bytes and a saved map of what is held, for a later `openIncoming`. */
  keep(): Promise<void>
  /** Closes and deletes. */
  drop(): Promise<void>
  /** Releases the file after a `commit`, when the last reader is done. `keep` and `drop` release it by themselves. */
  close(): Promise<void>
}
