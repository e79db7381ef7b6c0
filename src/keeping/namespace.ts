/** One namespace as keeping sees it: what is in it, what it may hold, and what of it is in use. */
import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { EvictionReason } from './policy.ts'
import type { Pins } from './pins.ts'
import type { UsageCount } from './usage.ts'

/** What the caches over the store know of its use. With no gateway running nothing is in use: {@link idleCaches}. */
export interface CachesInUse {
  /** Whether a digest is being filled, opened or read. */
  isBusy(digest: Digest): boolean
  /** Runs `remove` while nobody fills, opens or, unless `evenIfRead`, reads the digest; undefined when somebody does. */
  removeUnused<T>(
    digest: Digest,
    remove: () => Promise<T>,
    options?: { readonly evenIfRead?: boolean },
  ): Promise<T | undefined>
  /** Drops from memory what was removed from the store. */
  forget(repository: Repository, gone: { readonly tags: readonly Tag[]; readonly manifests: readonly Digest[] }): void
  /** Bytes that fills under way will still write. */
  readonly missingBytes: number
}

export interface KeptNamespace {
  readonly name: string
  /** The upstream as configured: a pattern's hosts share the pattern's. */
  readonly label: string
  readonly store: Store
  readonly caches: CachesInUse
  readonly pins: Pins
  readonly usage: UsageCount
  /** Bytes; Infinity: no limit. */
  readonly quotaBytes: number
  /** Infinity: never. */
  readonly idleMs: number
}

/** Why something was removed. */
export type RemovalReason = EvictionReason | 'purge' | 'orphan'

export type KeepingEvent =
  | {
      readonly kind: 'image.evicted'
      readonly repository: Repository
      readonly digest: Digest
      readonly tags: readonly Tag[]
      readonly reason: RemovalReason
      readonly bytes: number
    }
  | {
      readonly kind: 'blob.evicted'
      readonly digest: Digest
      readonly reason: RemovalReason
      readonly bytes: number
    }
  | { readonly kind: 'swept'; readonly blobs: number; readonly bytes: number; readonly links: number }
  | { readonly kind: 'failed'; readonly what: string; readonly error: unknown }

/** `label`: the upstream as configured. Both are empty where it concerns no namespace. */
export type KeepingObserver = (
  namespace: { readonly name: string; readonly label: string },
  event: KeepingEvent,
) => void

export const idleCaches: CachesInUse = {
  isBusy: () => false,
  removeUnused: (_digest, remove) => remove(),
  forget: () => undefined,
  missingBytes: 0,
}
