/** How often to try again and how long to wait before. Pure but for the budget's own count. */

/** Tries after the first one. */
export const MAX_RETRIES = 2
/** The longest pause a `Retry-After` can impose: a held answer covers the rest, and a wrong header must not stop us for a day. */
export const MAX_PAUSE_MS = 60_000

const BASE_MS = 200
const CAP_MS = 2_000
const BUDGET_SHARE = 0.1
const BUDGET_BURST = 10

/** Milliseconds before retry number `attempt` (from 0): full jitter, so that callers that failed together spread. */
export function backoffMs(attempt: number, random: () => number): number {
  return Math.round(random() * Math.min(CAP_MS, BASE_MS * 2 ** attempt))
}

/**
 * Retries as a share of requests: when an upstream fails as a whole, trying everything three times would triple the load
 * just when it can carry least.
 */
export class RetryBudget {
  #tokens = BUDGET_BURST

  /** Counts a first try. */
  earn(): void {
    this.#tokens = Math.min(BUDGET_BURST, this.#tokens + BUDGET_SHARE)
  }

  /** Whether one more retry may be made; counts it. */
  spend(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}

/** `Retry-After` as milliseconds from `now`, capped; undefined when missing or malformed. Rule: RFC 9110 section 10.2.3. */
export function retryAfterOf(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const text = header.trim()
  const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1_000 : /[A-Za-z]/.test(text) ? Date.parse(text) - now : Number.NaN
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_PAUSE_MS)
}
