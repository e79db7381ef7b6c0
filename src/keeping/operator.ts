/** What an operator may ask of what is held, whether a gateway runs or not: the values of the admin API and of commands. */
import type { SweepReport } from './sweep.ts'

export interface UpstreamHeld {
  readonly upstream: string
  readonly bytes: number
  /** Undefined: no limit. */
  readonly quotaBytes: number | undefined
}

export interface ImageHeld {
  readonly upstream: string
  readonly repository: string
  readonly digest: string
  readonly tags: readonly string[]
  /** What all it needs takes of the disk; what images share is counted with each. */
  readonly bytes: number
  /** ISO 8601. */
  readonly usedAt: string
  readonly addedAt: string
  readonly pulls: number
  readonly isPinned: boolean
}

export interface ImageQuery {
  readonly upstream?: string | undefined
  readonly repository?: string | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
  readonly limit: number
}

export interface ImageList {
  readonly images: readonly ImageHeld[]
  readonly next?: string | undefined
}

export interface Pin {
  readonly upstream: string
  readonly pattern: string
  /** Only an operator's can be removed here; the configuration's are in the upstream's file. */
  readonly from: 'configuration' | 'operator'
}

/** An upstream, a repository of it, or one tag or digest of that. */
export interface PurgeSelector {
  readonly upstream: string
  readonly repository?: string | undefined
  readonly tag?: string | undefined
  readonly digest?: string | undefined
}

export interface PurgedImage {
  readonly repository: string
  readonly digest: string
  readonly tags: readonly string[]
  /**
   * What became, or in a dry run would become, of it. `untagged`: other tags still point to it;
   * `needed`: only its tags went, since another image names it; `pinned`: nothing was done.
   */
  readonly outcome: 'removed' | 'untagged' | 'pinned' | 'needed'
}

export interface PurgeReport {
  readonly isDry: boolean
  readonly images: readonly PurgedImage[]
  /** Given back by the disk, as measured; in a dry run what nothing else needs. */
  readonly bytes: number
  /** Blobs left for the next sweep, because they were being filled. */
  readonly inUse: number
  /** There is more: ask again with it. */
  readonly next?: string | undefined
}

export interface PurgeRequest extends PurgeSelector {
  readonly isDry: boolean
  readonly after?: string | undefined
}

export interface SweepRequest {
  readonly upstream: string
  readonly isDry: boolean
}

/** Every method rejects with a `GatewayError` that says what to do. */
export interface OperatorDesk {
  upstreams(): Promise<readonly UpstreamHeld[]>
  images(query: ImageQuery): Promise<ImageList>
  pins(upstream?: string): Promise<readonly Pin[]>
  /** False: it was there already. */
  addPin(upstream: string, pattern: string): Promise<boolean>
  /** False: there was none. */
  removePin(upstream: string, pattern: string): Promise<boolean>
  purge(request: PurgeRequest): Promise<PurgeReport>
  sweep(request: SweepRequest): Promise<SweepReport>
}
