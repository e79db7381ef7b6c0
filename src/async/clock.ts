/** Time as a value that is passed in, so that tests need not sleep. */

export interface Clock {
  /** Epoch milliseconds. */
  now(): number
}

export const systemClock: Clock = { now: () => Date.now() }
