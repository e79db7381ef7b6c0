/** All that is cached of one upstream, put together: nothing in here is shared with another namespace. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { Guards } from '../async/guards.ts'
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
import { WatchedUpstream, type RightsEvent, type WatchedUpstreamOptions } from './watched-upstream.ts'

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
  readonly reserveRoom: BlobCacheOptions['reserveRoom']
  readonly onHeld: BlobCacheOptions['onHeld']
  readonly manifestMemoryBytes: number
  readonly complete: 'onPull' | 'never'
  readonly completeMaxBytes: number
  readonly onFill: BlobCacheOptions['onFill']
  readonly identityOf: WatchedUpstreamOptions['identityOf']
  readonly onManifest: (event: ManifestEvent | RightsEvent) => void
  readonly onCompleteFailed: (repository: Repository, digest: Digest, error: unknown) => void
}

const STAMP_MS = 24 * 3_600_000
const MAX_STAMPED = 50_000

export class NamespaceCache {
  readonly namespace: string
  readonly store: Store
  readonly manifests: ManifestCache
  readonly blobs: BlobCache
  readonly tagLists: TagLists
  readonly referrers: ReferrersCache
  readonly completer: ImageCompleter
  readonly #stamped = new LRUCache<string, number>({ max: MAX_STAMPED })
  readonly #ledger: Ledger
  readonly #clock: Clock
  readonly #watched: WatchedUpstream

  constructor(given: NamespaceCacheOptions) {
    const { deniedForMs, recheckMs } = given.tags
    const upstream = new WatchedUpstream({
      ...given,
      deniedForMs,
      recheckMs,
      onRevoked: (repository, manifests) => this.#revoke(repository, manifests),
      onEvent: given.onManifest,
    })
    const options = { ...given, upstream }
    this.#watched = upstream
    this.namespace = options.namespace
    this.store = options.store
    this.#ledger = options.ledger
    this.#clock = options.clock
    const membership = new Membership(options)
    const guards = new Guards()
    this.manifests = new ManifestCache({
      ...options,
      membership,
      guards,
      memoryBytes: options.manifestMemoryBytes,
      onEvent: options.onManifest,
    })
    this.blobs = new BlobCache({ ...options, membership, guards })
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
    this.#watched.confirm(repository, digest)
    if (kind !== 'get') return
    this.completer.noteManifest(repository, digest)
    this.#stampUse(repository, digest)
  }

  #revoke(repository: Repository, manifests: readonly Digest[]): void {
    this.manifests.forget(repository, { tags: [], manifests })
    this.blobs.revoke(repository)
  }

  /** The folder remembers the day of the last use, so that it outlives the ledger. */
  #stampUse(repository: Repository, digest: Digest): void {
    const key = `${repository}@${digest}`
    const now = this.#clock.now()
    if (now - (this.#stamped.get(key) ?? -Infinity) < STAMP_MS) return
    this.#stamped.set(key, now)
    // A stamp that cannot be written costs a little history, and only if the ledger is lost too.
    this.store.touchLink(repository, digest, now).catch(() => undefined)
  }

  isBusy(digest: Digest): boolean {
    return this.blobs.isBusy(digest)
  }

  removeUnused: BlobCache['removeUnused'] = (digest, remove, options) =>
    this.blobs.removeUnused(digest, remove, options)

  forget: ManifestCache['forget'] = (repository, gone) => this.manifests.forget(repository, gone)

  get missingBytes(): number {
    return this.blobs.missingBytes
  }

  /** Stops background work and fills; what fills hold stays for the next run. */
  async close(): Promise<void> {
    await Promise.all([this.#watched.close(), this.completer.close(), this.manifests.close(), this.blobs.close()])
  }
}
