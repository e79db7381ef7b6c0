/** A rate that is shared: requests or bytes per second of one upstream. */
import { delay } from '../async/abort.ts'
import { GatewayError } from '../errors.ts'

export interface PaceOptions {
  /** For the message. */
  readonly name: string
  readonly perSecond: number
  /** Whoever would have to wait longer is turned away with OVERLOADED. Default: nobody is. */
  readonly maxWaitMs?: number
}

/** Unused time is kept for this long, so that a quiet upstream answers a burst at once. */
const BURST_MS = 1_000

export class Pace {
  readonly #options: PaceOptions
  /** Monotonic milliseconds up to which all that was taken is paid for. */
  #paidUntil = Number.NEGATIVE_INFINITY

  constructor(options: PaceOptions) {
    this.#options = options
  }

  /** Waits until `amount` more fits the rate, in the order of the calls. */
  async take(amount: number, signal: AbortSignal): Promise<void> {
    const { name, perSecond, maxWaitMs = Number.POSITIVE_INFINITY } = this.#options
    const now = performance.now()
    const paidUntil = Math.max(this.#paidUntil, now - BURST_MS) + (amount / perSecond) * 1_000
    const waitMs = paidUntil - now
    if (waitMs > maxWaitMs) {
      const retryAfterMs = Math.ceil(waitMs)
      throw new GatewayError('OVERLOADED', `${name}: more calls than ${perSecond} a second`, { retryAfterMs })
    }
    this.#paidUntil = paidUntil
    if (waitMs > 0) await delay(waitMs, signal)
  }
}
