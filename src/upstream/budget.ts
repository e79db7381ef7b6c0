/** Pulls left at a registry that counts them (Docker Hub counts manifest GETs, not HEADs). */
import type { Clock } from '../async/clock.ts'
import { BoundedMap } from '../async/bounded-map.ts'
import type { ReplyHeaders } from './transport.ts'

export interface RateBudget {
  readonly limit: number
  readonly remaining: number
  readonly windowMs: number
  readonly seenAt: number
}

const MAX_IDENTITIES = 64
/** Below this share of the limit the rest is kept for clients. */
const RESERVED_SHARE = 0.25

/** What the last replies said, per identity: each account and the anonymous address have their own count. */
export class RateBudgets {
  readonly #budgets = new BoundedMap<RateBudget>(MAX_IDENTITIES)
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Takes over `ratelimit-limit` and `ratelimit-remaining` (`100;w=21600`); replies without them change nothing. */
  observe(identity: string, headers: ReplyHeaders): void {
    const limit = parseQuota(headers.get('ratelimit-limit'))
    const remaining = parseQuota(headers.get('ratelimit-remaining'))
    if (limit === undefined || remaining === undefined) return
    const windowMs = (remaining.windowS ?? limit.windowS ?? 21_600) * 1_000
    this.#budgets.set(identity, { limit: limit.count, remaining: remaining.count, windowMs, seenAt: this.#clock.now() })
  }

  /** The count that still means something: a whole window later it says nothing. */
  get(identity: string): RateBudget | undefined {
    const budget = this.#budgets.get(identity)
    return budget !== undefined && this.#clock.now() - budget.seenAt < budget.windowMs ? budget : undefined
  }

  /** Whether what is left should go to clients alone. */
  isLow(identity: string): boolean {
    const budget = this.get(identity)
    return budget !== undefined && budget.remaining <= budget.limit * RESERVED_SHARE
  }
}

function parseQuota(header: string | undefined): { count: number; windowS: number | undefined } | undefined {
  const [, count, windowS] = /^\s*(\d{1,9})\s*(?:;\s*w=(\d{1,9}))?\s*$/.exec(header ?? '') ?? []
  if (count === undefined) return undefined
  return { count: Number(count), windowS: windowS === undefined ? undefined : Number(windowS) }
}
