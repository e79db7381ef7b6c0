/** A bounded number of exchanges at a time, and a bounded queue before them. Clients go before background work. */
import { abortable } from '../async/abort.ts'
import { GatewayError } from '../errors.ts'

export interface LaneOptions {
  /** For the message. */
  readonly name: string
  readonly slots: number
  /** Callers that may wait; the next one is turned away. */
  readonly queueLength: number
  readonly queueMs: number
}

export interface SlotOptions {
  readonly signal: AbortSignal
  readonly priority: 'client' | 'background'
}

export class Lane {
  readonly #options: LaneOptions
  readonly #waiting = { client: new Set<() => void>(), background: new Set<() => void>() }
  #free: number

  constructor(options: LaneOptions) {
    this.#options = options
    this.#free = options.slots
  }

  /** Waits for a slot; the answer gives it back and may be called more than once. OVERLOADED when queue or time run out. */
  async enter(options: SlotOptions): Promise<() => void> {
    options.signal.throwIfAborted()
    if (this.#free > 0) this.#free--
    else await this.#wait(options)
    let isHeld = true
    return () => {
      if (isHeld) this.#leave()
      isHeld = false
    }
  }

  async #wait({ signal, priority }: SlotOptions): Promise<void> {
    const { name, queueLength, queueMs } = this.#options
    if (this.#waiting.client.size + this.#waiting.background.size >= queueLength) {
      throw new GatewayError('OVERLOADED', `${name}: ${queueLength} calls already wait for a connection`, {
        retryAfterMs: 5_000,
      })
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    const timeout = AbortSignal.timeout(queueMs)
    this.#waiting[priority].add(resolve)
    try {
      await abortable(promise, AbortSignal.any([signal, timeout]))
    } catch (error) {
      // A slot given in the same moment goes on to the next one.
      if (!this.#waiting[priority].delete(resolve)) this.#leave()
      if (signal.aborted) throw error
      throw new GatewayError('OVERLOADED', `${name}: no connection came free within ${queueMs} ms`, {
        retryAfterMs: 5_000,
      })
    }
  }

  #leave(): void {
    for (const queue of [this.#waiting.client, this.#waiting.background]) {
      for (const next of queue) {
        queue.delete(next)
        return next()
      }
    }
    this.#free++
  }
}
