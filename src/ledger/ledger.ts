/**
 * The ledger port: what we know about what we hold. Derived: all of it but history is rebuilt from the store.
 * Writes return at once, are batched, and are seen by later reads of this process; `flush` makes them durable.
 */
import type { Digest } from '../oci/digest.ts'
import type { ChildRole } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'

/** Last known target of a tag. */
export interface TagRecord {
  readonly digest: Digest
  /** Epoch ms of the last answer of the upstream that confirmed it; 0 when only the folder says so. */
  readonly checkedAt: number
}

/** The stamp a blob's file had when its bytes were verified and synced. */
export interface VerifiedMark {
  readonly size: number
  readonly mtimeMs: number
}

export type { ChildRole }

/** One edge of the image graph, as a verified manifest of a repository names it. */
export interface ChildRecord {
  readonly digest: Digest
  readonly size: number
  readonly role: ChildRole
}

export interface ParentRecord {
  /** The manifest that names the child. */
  readonly parent: Digest
  readonly size: number
  readonly role: ChildRole
}

export interface Usage {
  readonly lastGetAt: number
  readonly lastHeadAt: number
  readonly gets: number
}

/** A manifest that stands for itself: no held manifest of its repository names it, or a tag points to it. */
export interface ImageRecord {
  readonly repository: Repository
  readonly digest: Digest
  /** At most 100 of those that point to it. */
  readonly tags: readonly Tag[]
  /** Epoch ms when it came. */
  readonly addedAt: number
  /** Epoch ms of the last GET of it or of a manifest it names, or when it came. */
  readonly usedAt: number
  readonly lastHeadAt: number
  readonly gets: number
}

export interface ImagePage {
  readonly images: readonly ImageRecord[]
  /** Where the next page starts; undefined when this was the last. */
  readonly next: string | undefined
}

/** One manifest or blob that an image holds together. */
export interface ClosureRecord {
  /** Undefined for the image itself. */
  readonly parent: Digest | undefined
  readonly digest: Digest
  /** As what `parent` names it; `referrer`: it names the parent as its subject. */
  readonly role: Exclude<ChildRole, 'subject'> | 'referrer'
  /** As named; 0 where nothing names it. */
  readonly size: number
  readonly isTagged: boolean
}

export interface Ledger {
  readTag(namespace: string, repository: Repository, tag: Tag): Promise<TagRecord | undefined>
  writeTag(namespace: string, repository: Repository, tag: Tag, record: TagRecord): void
  removeTag(namespace: string, repository: Repository, tag: Tag): void

  readVerified(namespace: string, digest: Digest): Promise<VerifiedMark | undefined>
  writeVerified(namespace: string, digest: Digest, mark: VerifiedMark): void
  removeVerified(namespace: string, digest: Digest): void

  /**
   * Records what a verified manifest of `repository` names; replaces what was known of that manifest there. `addedAt`
   * (epoch ms) counts as its first use.
   */
  writeManifest(
    namespace: string,
    repository: Repository,
    manifest: Digest,
    children: readonly ChildRecord[],
    addedAt?: number,
  ): void
  /** Forgets a manifest of a repository: what it names, and its use. Tags that point to it stay. */
  removeManifest(namespace: string, repository: Repository, manifest: Digest): void
  /** Every manifest of `repository` that names `child`. */
  readParents(namespace: string, repository: Repository, child: Digest): Promise<ParentRecord[]>
  readChildren(namespace: string, repository: Repository, manifest: Digest): Promise<ChildRecord[]>

  /** Counts one use of a manifest; a `head` never counts as a pull. */
  touch(namespace: string, repository: Repository, manifest: Digest, kind: 'get' | 'head', at: number): void
  readUsage(namespace: string, repository: Repository, manifest: Digest): Promise<Usage | undefined>

  /** Images by repository and digest; of one repository when it is given. Undefined: not known now. */
  listImages(
    namespace: string,
    options: {
      readonly repository?: Repository | undefined
      readonly after?: string | undefined
      readonly limit: number
    },
  ): Promise<ImagePage | undefined>
  /** Images by their last use, the oldest first. Undefined: not known now. */
  listLeastUsed(
    namespace: string,
    options: { readonly after?: string | undefined; readonly limit: number },
  ): Promise<ImagePage | undefined>
  /**
   * All that an image holds together: itself, the manifests it names that are known here, their blobs, and manifests
   * that name one of these as their subject. At most 10,000. Undefined: not known now.
   */
  readClosure(namespace: string, repository: Repository, image: Digest): Promise<ClosureRecord[] | undefined>
  /**
   * How many places of the namespace need each digest: manifests of any repository that name it (but as a subject), and
   * repositories that hold it as a manifest. Undefined: not known now, so nothing may be concluded.
   */
  countReferences(namespace: string, digests: readonly Digest[]): Promise<number[] | undefined>
  /** Bytes of all blobs with a verified mark. */
  readVerifiedBytes(namespace: string): Promise<number | undefined>

  /** Whether the namespace's facts are complete; false right after the ledger was lost, until a rebuild said so. */
  isComplete(namespace: string): Promise<boolean>
  markComplete(namespace: string): void

  flush(): Promise<void>
  close(): Promise<void>
}
