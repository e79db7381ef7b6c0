/** A bounded number of things at a time, and a bounded line in front. */
import { GatewayError } from '../errors.ts'

export interface LimiterOptions {
  /** How many run at a time. */
  readonly slots: number
  /** How many may wait; one more is refused at once. */
  readonly queue: number
  /** Named in the refusal. */
  readonly what: string
}

/** First come, first served. */
export class Limiter {
  readonly #options: LimiterOptions
  readonly #waiting = new Set<() => void>()
  #free: number

  constructor(options: LimiterOptions) {
    this.#options = options
    this.#free = options.slots
  }

  /** Waits for a slot. Dispose what it gives exactly once. Rejects with OVERLOADED when the line is full. */
  async acquire(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted()
    if (this.#free > 0) this.#free--
    else await this.#waitInLine(signal)
    let isHeld = true
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.#release()
        isHeld = false
      },
    }
  }

  get waiting(): number {
    return this.#waiting.size
  }

  async #waitInLine(signal: AbortSignal): Promise<void> {
    const { slots, queue, what } = this.#options
    if (this.#waiting.size >= queue) {
      throw new GatewayError('OVERLOADED', `${what}: ${slots} under way and ${queue} waiting`, { retryAfterMs: 5_000 })
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = (): void => {
      this.#waiting.delete(resolve)
      reject(signal.reason as Error)
    }
    this.#waiting.add(resolve)
    signal.addEventListener('abort', onAbort, { once: true })
    await promise.finally(() => signal.removeEventListener('abort', onAbort))
  }

  #release(): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#free++
      return
    }
    this.#waiting.delete(next)
    next()
  }
}
