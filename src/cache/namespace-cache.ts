/** All that is cached of one upstream, put together: nothing in here is shared with another namespace. */
import type { Clock } from '../async/clock.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { Upstream } from '../upstream/upstream.ts'
import { BlobCache, type BlobCacheOptions } from './blob-cache.ts'
import { ImageCompleter } from './complete.ts'
import type { TagPolicy } from './freshness.ts'
import { ManifestCache, type ManifestEvent } from './manifest-cache.ts'
import { Membership } from './membership.ts'
import { ReferrersCache } from './referrers.ts'
import type { SchedulePolicy } from './schedule.ts'
import { TagLists } from './tag-lists.ts'

export interface NamespaceCacheOptions {
  readonly namespace: string
  readonly store: Store
  readonly ledger: Ledger
  readonly upstream: Upstream
  readonly clock: Clock
  readonly random: () => number
  readonly tags: TagPolicy
  /** How long a 404 is remembered, in ms. */
  readonly negativeTtlMs: number
  /** Every client may read all that our identity at the upstream may. */
  readonly isShared: boolean
  readonly isOffline: boolean
  readonly schedule: SchedulePolicy
  readonly maxFills: number
  readonly maxQueuedFills: number
  /** How long a fill without readers goes on before it stops, in ms. */
  readonly graceMs: number
  readonly freeFloorBytes: number
  readonly manifestMemoryBytes: number
  readonly complete: 'onPull' | 'never'
  readonly completeMaxBytes: number
  readonly onFill: BlobCacheOptions['onFill']
  readonly onManifest: (event: ManifestEvent) => void
  readonly onCompleteFailed: (repository: Repository, digest: Digest, error: unknown) => void
}

export class NamespaceCache {
  readonly namespace: string
  readonly store: Store
  readonly manifests: ManifestCache
  readonly blobs: BlobCache
  readonly tagLists: TagLists
  readonly referrers: ReferrersCache
  readonly completer: ImageCompleter
  readonly #ledger: Ledger
  readonly #clock: Clock

  constructor(options: NamespaceCacheOptions) {
    this.namespace = options.namespace
    this.store = options.store
    this.#ledger = options.ledger
    this.#clock = options.clock
    const membership = new Membership(options)
    this.manifests = new ManifestCache({
      ...options,
      membership,
      memoryBytes: options.manifestMemoryBytes,
      onEvent: options.onManifest,
    })
    this.blobs = new BlobCache({ ...options, membership })
    this.tagLists = new TagLists(options)
    this.referrers = new ReferrersCache({ ...options, manifests: this.manifests })
    this.completer = new ImageCompleter({
      ...options,
      manifests: this.manifests,
      blobs: this.blobs,
      referrers: this.referrers,
      mode: options.isOffline ? 'never' : options.complete,
      maxBytes: options.completeMaxBytes,
      onFailed: options.onCompleteFailed,
    })
  }

  /** Counts one use of a manifest; only a GET is a pull. */
  touch(repository: Repository, digest: Digest, kind: 'get' | 'head'): void {
    this.#ledger.touch(this.namespace, repository, digest, kind, this.#clock.now())
    if (kind === 'get') this.completer.noteManifest(repository, digest)
  }

  /** Stops background work and fills; what fills hold stays for the next run. */
  async close(): Promise<void> {
    await Promise.all([this.completer.close(), this.manifests.close(), this.blobs.close()])
  }
}
