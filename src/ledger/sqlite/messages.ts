/** What the main thread and the ledger's worker say to each other. All of it survives a structured clone. */
import type { ErrorCode } from '../../errors.ts'
import type { Digest } from '../../oci/digest.ts'
import type { Tag } from '../../oci/reference.ts'
import type { Repository } from '../../oci/repository.ts'
import type { ChildRecord, ClosureRecord, ImagePage, ParentRecord, TagRecord, Usage, VerifiedMark } from '../ledger.ts'

interface InRepository {
  readonly namespace: string
  readonly repository: Repository
}

/** Uses of one manifest since the last batch, added up: they commute, so a hot manifest is one row a batch. */
export interface Touch extends InRepository {
  readonly manifest: Digest
  gets: number
  lastGetAt: number
  lastHeadAt: number
}

export type Write =
  | (InRepository & { readonly write: 'tag'; readonly tag: Tag; readonly record: TagRecord })
  | (InRepository & { readonly write: 'tagRemoval'; readonly tag: Tag })
  | (InRepository & {
      readonly write: 'manifest'
      readonly manifest: Digest
      readonly children: readonly ChildRecord[]
      readonly addedAt: number
    })
  | (InRepository & { readonly write: 'manifestRemoval'; readonly manifest: Digest })
  | { readonly write: 'verified'; readonly namespace: string; readonly digest: Digest; readonly mark: VerifiedMark }
  | { readonly write: 'verifiedRemoval'; readonly namespace: string; readonly digest: Digest }
  | { readonly write: 'complete'; readonly namespace: string }

export interface Batch {
  readonly writes: readonly Write[]
  readonly touches: readonly Touch[]
  /** Namespaces of which writes had to be dropped since the last batch. */
  readonly lost: readonly string[]
  readonly rows: number
}

export type Read =
  | (InRepository & { readonly read: 'tag'; readonly tag: Tag })
  | { readonly read: 'verified'; readonly namespace: string; readonly digest: Digest }
  | (InRepository & { readonly read: 'parents'; readonly child: Digest })
  | (InRepository & { readonly read: 'children'; readonly manifest: Digest })
  | (InRepository & { readonly read: 'usage'; readonly manifest: Digest })
  | { readonly read: 'isComplete'; readonly namespace: string }
  | {
      readonly read: 'images'
      readonly namespace: string
      readonly repository: Repository | undefined
      readonly after: string | undefined
      readonly limit: number
    }
  | {
      readonly read: 'leastUsed'
      readonly namespace: string
      readonly after: string | undefined
      readonly limit: number
    }
  | (InRepository & { readonly read: 'closure'; readonly image: Digest })
  | { readonly read: 'references'; readonly namespace: string; readonly digests: readonly Digest[] }
  | { readonly read: 'verifiedBytes'; readonly namespace: string }

/** What each read is answered with. */
export interface Answers {
  readonly tag: TagRecord | undefined
  readonly verified: VerifiedMark | undefined
  readonly parents: ParentRecord[]
  readonly children: ChildRecord[]
  readonly usage: Usage | undefined
  readonly isComplete: boolean
  readonly images: ImagePage
  readonly leastUsed: ImagePage
  readonly closure: ClosureRecord[]
  readonly references: number[]
  readonly verifiedBytes: number
}

/** Messages are worked off one by one, in the order they were posted: a read sees every batch before it. */
export type ToWorker =
  | { readonly kind: 'batch'; readonly batch: Batch }
  | { readonly kind: 'read'; readonly id: number; readonly read: Read }
  | { readonly kind: 'flush'; readonly id: number }
  | { readonly kind: 'close'; readonly id: number }

export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'unusable'; readonly code: ErrorCode; readonly message: string }
  | { readonly kind: 'applied'; readonly rows: number }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  /** Something failed and the worker goes on; `topic` is what reports are counted by. */
  | { readonly kind: 'problem'; readonly topic: ProblemTopic; readonly message: string }

export type ProblemTopic = 'write' | 'read' | 'corrupt' | 'memory' | 'overflow' | 'worker' | 'slow'

export interface WorkerOptions {
  readonly path: string
}
