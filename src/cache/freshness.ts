/** How old may an answer be? Pure arithmetic; `now` is an argument. */
import type { TagRecord } from '../ledger/ledger.ts'
import type { Tag } from '../oci/reference.ts'

/** All durations in ms. */
export interface TagPolicy {
  /** Within this age a tag is answered without asking. */
  readonly ttlMs: number
  /** How long a client waits for a check before it gets the stale answer; undefined: 3 s if confirmed within a day, else 10 s. */
  readonly maxWaitMs: number | undefined
  /** How long past its ttl a tag is served while the upstream gives no answer; Infinity: for ever. */
  readonly staleForMs: number
  /** Tags that never change once known. */
  readonly isImmutable: (repository: string, tag: Tag) => boolean
  /** A 404 for a tag that we hold: keep serving it for `goneForMs`, or follow at once. */
  readonly onGone: 'keep' | 'follow'
  readonly goneForMs: number
  /** How long an anonymous caller keeps serving a repository that it is denied. */
  readonly deniedForMs: number
  /** After this the right to a repository read by a credential is confirmed again. */
  readonly recheckMs: number
}

export type Freshness = 'fresh' | 'stale' | 'expired'

/** Signatures and referrers are pushed after the image they belong to, so what is known of them ages fast. */
export const REFERRERS_TTL_MS = 30_000
const REFERRERS_TAG = /^sha(?:256|512)-[a-f0-9]{32,}/
const DAY_MS = 86_400_000
const USUAL_WAIT_MS = 3_000
const LONG_WAIT_MS = 10_000

export function freshness(record: TagRecord, tag: Tag, now: number, policy: TagPolicy): Freshness {
  const ttlMs = isReferrersTag(tag) ? Math.min(policy.ttlMs, REFERRERS_TTL_MS) : policy.ttlMs
  // A clock that was set back makes the age negative: then nothing is known to be fresh.
  const ageMs = now - record.checkedAt
  if (ageMs >= 0 && ageMs < ttlMs) return 'fresh'
  return ageMs > ttlMs + policy.staleForMs && record.checkedAt > 0 ? 'expired' : 'stale'
}

/** How long a client waits for the upstream before it gets what we hold. */
export function maxWaitFor(record: TagRecord, now: number, policy: TagPolicy): number {
  return policy.maxWaitMs ?? (now - record.checkedAt <= DAY_MS ? USUAL_WAIT_MS : LONG_WAIT_MS)
}

/** The tag scheme of referrers and the cosign tags (`sha256-<hex>`, `….sig`, `….att`, `….sbom`). */
export function isReferrersTag(tag: Tag): boolean {
  return REFERRERS_TAG.test(tag)
}
