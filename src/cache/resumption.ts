/** Whether and when a fill goes on after a transfer of it failed: as long as bytes keep coming, and ever more gently. */
import { delay } from '../async/abort.ts'
import { isNonAnswer, type GatewayError } from '../errors.ts'

export interface CutFill {
  /** Bytes are here or on their way on another connection. What was refused at the very first byte is the answer. */
  readonly hasBegun: boolean
  /** It was, or could have been, fetched over several connections. */
  readonly isParallel: boolean
}

/** Cuts in a row that bring no new byte before the fill gives up. */
const MAX_BARREN = 5
const FIRST_DELAY_MS = 100
const MAX_DELAY_MS = 5_000

export class Resumption {
  readonly #random: () => number
  #barren = 0
  #waiting = 0
  #isSingle = false

  constructor(random: () => number) {
    this.#random = random
  }

  /** The upstream does not honour ranges, or asked us to slow down: one connection from now on. */
  get isSingle(): boolean {
    return this.#isSingle
  }

  /** Nothing is to be started while a pause runs. */
  get isWaiting(): boolean {
    return this.#waiting > 0
  }

  useOneConnection(): void {
    this.#isSingle = true
  }

  /** New bytes came. Bytes that were here already do not count: an upstream that starts over would go on for ever. */
  progressed(): void {
    this.#barren = 0
  }

  /** Whether the fill goes on after `error`; then {@link pause} comes next. */
  admits(error: GatewayError, { hasBegun, isParallel }: CutFill): boolean {
    const isLast = this.#barren >= MAX_BARREN
    if (error.code === 'UPSTREAM_INVALID') {
      // A surprise may come of several connections: it is tried once with one.
      const mayBeSimpler = isParallel && !this.#isSingle
      this.#isSingle = true
      return mayBeSimpler && !isLast
    }
    // No connection was free in time: that is as good as being asked to slow down.
    const isBusy = error.code === 'UPSTREAM_THROTTLED' || error.code === 'OVERLOADED'
    if (isBusy) this.#isSingle = true
    return (isBusy || isNonAnswer(error)) && hasBegun && !isLast
  }

  /** Waits as long as the error asks, or longer with each barren cut; the first is taken up at once. Never rejects. */
  async pause(error: GatewayError, signal: AbortSignal): Promise<void> {
    // What fails while we wait already was cut by the same cause.
    if (this.#waiting === 0) this.#barren++
    const isFirst = this.#barren <= 1 && error.retryAfterMs === undefined
    const backoffMs = FIRST_DELAY_MS * 2 ** (this.#barren - 1) * (0.5 + this.#random())
    const pauseMs = isFirst ? 0 : Math.max(backoffMs, error.retryAfterMs ?? 0)
    this.#waiting++
    await delay(Math.min(pauseMs, MAX_DELAY_MS), signal).catch(() => undefined)
    this.#waiting--
  }
}
