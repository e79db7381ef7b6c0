/** How many failed logins an address may have: a bucket of tries each, refilled over time, in a bounded map. */
import { isIPv6 } from 'node:net'
import { BoundedMap } from '../async/bounded-map.ts'
import type { Clock } from '../async/clock.ts'

export interface FailureBudgetOptions {
  readonly clock: Clock
  /** Failures at once. Default 10. */
  readonly burst?: number
  /** Time after which one more is allowed. Default 6 s. */
  readonly refillMs?: number
}

interface Bucket {
  readonly tries: number
  readonly at: number
}

/** An attacker with more addresses than this pushes his own oldest ones out; each costs him a connection. */
const MAX_ADDRESSES = 10_000

export class FailureBudget {
  readonly #clock: Clock
  readonly #burst: number
  readonly #refillMs: number
  readonly #buckets = new BoundedMap<Bucket>(MAX_ADDRESSES)

  constructor({ clock, burst = 10, refillMs = 6_000 }: FailureBudgetOptions) {
    this.#clock = clock
    this.#burst = burst
    this.#refillMs = refillMs
  }

  /** Takes a try before it is known how it ends, so that many at once cannot all be the last one. False: none is left. */
  take(address: string): boolean {
    const key = keyOf(address)
    const tries = this.#triesOf(key)
    if (tries < 1) return false
    this.#buckets.set(key, { tries: tries - 1, at: this.#clock.now() })
    return true
  }

  /** Gives a try back: it was no failure. */
  giveBack(address: string): void {
    const key = keyOf(address)
    const tries = this.#triesOf(key) + 1
    if (tries >= this.#burst) this.#buckets.delete(key)
    else this.#buckets.set(key, { tries, at: this.#clock.now() })
  }

  #triesOf(key: string): number {
    const bucket = this.#buckets.get(key)
    if (bucket === undefined) return this.#burst
    return Math.min(this.#burst, bucket.tries + Math.max(0, this.#clock.now() - bucket.at) / this.#refillMs)
  }
}

/** A customer of an IPv6 provider has a whole /64, so that is one address here. */
function keyOf(address: string): string {
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail === undefined) return groups.slice(0, 4).join(':')
  const after = tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: Math.max(0, 8 - groups.length - after.length) }, () => '0')
  return [...groups, ...zeros, ...after].slice(0, 4).join(':')
}
