/** Remembered refusals: short, bounded, and only for answers, never for failures. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'

/** Hostile names must not grow it: the oldest entry goes. */
const MAX_ENTRIES = 10_000

const ANSWERS: ReadonlySet<string> = new Set([
  'MANIFEST_UNKNOWN',
  'BLOB_UNKNOWN',
  'NAME_UNKNOWN',
  'UPSTREAM_DENIED',
] satisfies ErrorCode[])

interface NegativeEntry {
  readonly code: ErrorCode
  readonly message: string
  readonly until: number
}

export class NegativeCache {
  readonly #entries = new LRUCache<string, NegativeEntry>({ max: MAX_ENTRIES })
  readonly #clock: Clock
  readonly #ttlMs: number

  /** `ttlMs`: how long a refusal is remembered. Signatures get pushed after images, so seconds. */
  constructor(clock: Clock, ttlMs: number) {
    this.#clock = clock
    this.#ttlMs = ttlMs
  }

  /** Throws what the upstream said a moment ago about `key`, if it said no. */
  check(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    if (entry.until > this.#clock.now()) throw new GatewayError(entry.code, entry.message, { isRemembered: true })
    this.#entries.delete(key)
  }

  /** Remembers `error` when it is an answer of the upstream; gives it back to be thrown. */
  remember(key: string, error: unknown): unknown {
    if (error instanceof GatewayError && ANSWERS.has(error.code)) {
      this.#entries.set(key, { code: error.code, message: error.message, until: this.#clock.now() + this.#ttlMs })
    }
    return error
  }

  forget(key: string): void {
    this.#entries.delete(key)
  }
}
