/** One endpoint's health: stops asking it while most calls fail, then lets a single call find out whether it is back. */
import type { Clock } from '../async/clock.ts'

export type BreakerState = 'closed' | 'open' | 'probing'

export interface BreakerOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly onOpen: (retryInMs: number) => void
  readonly onClose: () => void
}

const WINDOW_MS = 30_000
const WINDOW_CALLS = 20
/** Two failures prove nothing (one fill with two connections); a rate needs a few calls. */
const MIN_CALLS = 5
const FAILURE_RATE = 0.5
const FIRST_PAUSE_MS = 2_000
const MAX_PAUSE_MS = 60_000

export class Breaker {
  readonly #options: BreakerOptions
  #calls: { readonly at: number; readonly failed: boolean }[] = []
  #state: BreakerState = 'closed'
  #retryAt = 0
  #pauseMs = FIRST_PAUSE_MS

  constructor(options: BreakerOptions) {
    this.#options = options
  }

  get state(): BreakerState {
    return this.#state
  }

  /** Milliseconds until a call may probe; 0 when one may now. */
  get retryInMs(): number {
    return this.#state === 'closed' ? 0 : Math.max(0, this.#retryAt - this.#options.clock.now())
  }

  /** Whether `enter` would let a call pass. */
  get admits(): boolean {
    return this.#state === 'closed' || (this.#state === 'open' && this.retryInMs === 0)
  }

  /** Takes part; false when the breaker is open, or another call already probes. Each true is followed by one outcome. */
  enter(): boolean {
    if (!this.admits) return false
    if (this.#state === 'open') this.#state = 'probing'
    return true
  }

  /** The endpoint answered, whatever it said. */
  succeed(): void {
    if (this.#state === 'closed') return this.#record(false)
    // A call from before it opened proves as much as a probe does.
    this.#state = 'closed'
    this.#calls = []
    this.#pauseMs = FIRST_PAUSE_MS
    this.#options.onClose()
  }

  /** No answer, or a 5xx. */
  fail(): void {
    if (this.#state === 'probing') return this.#open()
    if (this.#state === 'open') return
    this.#record(true)
    const failures = this.#calls.filter(({ failed }) => failed).length
    if (this.#calls.length >= MIN_CALLS && failures / this.#calls.length >= FAILURE_RATE) this.#open()
  }

  /** The call ended for a reason of its own: it says nothing about the endpoint, and lets the next one probe. */
  leave(): void {
    if (this.#state === 'probing') this.#state = 'open'
  }

  #record(failed: boolean): void {
    const at = this.#options.clock.now()
    const kept = this.#calls.filter((call) => at - call.at < WINDOW_MS).slice(1 - WINDOW_CALLS)
    this.#calls = [...kept, { at, failed }]
  }

  /** Each failed probe doubles the pause; jitter keeps replicas from probing together. */
  #open(): void {
    const pauseMs = Math.round(this.#pauseMs * (0.5 + this.#options.random()))
    this.#state = 'open'
    this.#calls = []
    this.#retryAt = this.#options.clock.now() + pauseMs
    this.#pauseMs = Math.min(MAX_PAUSE_MS, this.#pauseMs * 2)
    this.#options.onOpen(pauseMs)
  }
}
