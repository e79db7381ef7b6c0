/** A clock that moves only when a test moves it. */

/** Starts at 2026-01-01T00:00:00Z unless told otherwise, so that dates in a failure are recognisable. */
export class ManualClock {
  #now: number

  constructor(startAt: number = Date.UTC(2026, 0, 1)) {
    this.#now = startAt
  }

  /** Epoch milliseconds. */
  now(): number {
    return this.#now
  }

  /** Moves by `ms`; a negative value is a clock that was stepped back. */
  advance(ms: number): void {
    this.#now += ms
  }
}
