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

export interface Ledger {
  readTag(namespace: string, repository: Repository, tag: Tag): Promise<TagRecord | undefined>
  writeTag(namespace: string, repository: Repository, tag: Tag, record: TagRecord): void
  removeTag(namespace: string, repository: Repository, tag: Tag): void

  readVerified(namespace: string, digest: Digest): Promise<VerifiedMark | undefined>
  writeVerified(namespace: string, digest: Digest, mark: VerifiedMark): void
  removeVerified(namespace: string, digest: Digest): void

  /** Records what a verified manifest of `repository` names; replaces what was known of that manifest there. */
  writeManifest(namespace: string, repository: Repository, manifest: Digest, children: readonly ChildRecord[]): void
  /** Every manifest of `repository` that names `child`. */
  readParents(namespace: string, repository: Repository, child: Digest): Promise<ParentRecord[]>
  readChildren(namespace: string, repository: Repository, manifest: Digest): Promise<ChildRecord[]>

  /** Counts one use of a manifest; a `head` never counts as a pull. */
  touch(namespace: string, repository: Repository, manifest: Digest, kind: 'get' | 'head', at: number): void
  readUsage(namespace: string, repository: Repository, manifest: Digest): Promise<Usage | undefined>

  /** Whether the namespace's facts are complete; false right after the ledger was lost, until a rebuild said so. */
  isComplete(namespace: string): Promise<boolean>
  markComplete(namespace: string): void

  flush(): Promise<void>
  close(): Promise<void>
}
