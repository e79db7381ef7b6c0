/**
 * What goes when space is short, and what goes because nobody used it. Pure: `now` and all facts are arguments.
 *
 * The unit is an image, since an image that lacks a layer is of no use in an outage. A digest is freed once every image
 * that needs it goes; a shared layer lives while one of them stays. What is pinned, young, or would take away bytes that
 * are being filled or read right now stays.
 */
import type { Digest } from '../oci/digest.ts'

/** An image that might go. */
export interface Candidate {
  /** Tells it from every other candidate. */
  readonly key: string
  readonly namespace: string
  /** Epoch ms of its last GET, or when it came. What a HEAD says does not count here: update checkers are not users. */
  readonly usedAt: number
  /** Epoch ms of its last GET or HEAD, or when it came. */
  readonly seenAt: number
  readonly isPinned: boolean
  /** Every manifest and blob it holds together, with the bytes each takes of the disk (0: not here). */
  readonly needs: ReadonlyMap<Digest, number>
}

export type EvictionReason = 'idle' | 'quota' | 'quotaInAll' | 'free'

export interface Victim<C extends Candidate = Candidate> {
  readonly image: C
  readonly reason: EvictionReason
  /** Bytes that its going frees, after those before it went. */
  readonly bytes: number
}

/** Bytes that are too many; what is not above 0 is no excess. */
export interface Excess {
  readonly namespaces: ReadonlyMap<string, number>
  readonly inAll: number
  /** Missing to the free-space floor of the disk. */
  readonly free: number
}

export interface PolicyInput<C extends Candidate = Candidate> {
  readonly now: number
  readonly candidates: readonly C[]
  readonly excess: Excess
  /** Not used for so long, an image goes without any need for space. Infinity: never. */
  readonly idleMsOf: (namespace: string) => number
  /** Younger than this since its last use, an image does not go for space: it may be half pulled. */
  readonly minAgeMs: number
  /** Whether a digest is being filled, opened or read. */
  readonly isBusy: (namespace: string, digest: Digest) => boolean
  /** Whether an image that is no candidate needs it. */
  readonly isNeededElsewhere: (namespace: string, digest: Digest) => boolean
}

/** How full something may be, in bytes. */
export interface Gauge {
  readonly used: number
  /** Promised to what is on its way in. */
  readonly promised: number
  readonly quota: number
}

/**
 * Bytes that must go so that `needed` more fit: none while they do. `lowShare` is the share of the quota down to which
 * is evicted once it is exceeded; 1 frees no more than is needed.
 */
export function excessOver({ used, promised, quota }: Gauge, needed: number, lowShare: number): number {
  const wanted = used + promised + needed
  return wanted > quota ? wanted - Math.floor(quota * lowShare) : 0
}

/**
 * Victims in the order in which they should go: first those that nobody used for their namespace's idle time, then the
 * least recently used until no excess is left or nothing may go any more. In each part the older goes first.
 */
export function planEviction<C extends Candidate>(input: PolicyInput<C>): Victim<C>[] {
  const plan = new Plan(input)
  const movable = input.candidates.filter(({ isPinned }) => !isPinned)
  for (const image of movable.toSorted(bySeen)) {
    if (input.now - image.seenAt > input.idleMsOf(image.namespace)) plan.take(image, 'idle')
  }
  for (const image of movable.toSorted(byUse)) {
    if (input.now - image.usedAt < input.minAgeMs) break
    const reason = plan.reasonFor(image)
    if (reason !== undefined) plan.take(image, reason)
  }
  return plan.victims
}

class Plan<C extends Candidate> {
  readonly victims: Victim<C>[] = []
  readonly #input: PolicyInput<C>
  /** How many images need a digest and stay. */
  readonly #needers = new Map<string, number>()
  readonly #taken = new Set<string>()
  readonly #left: Map<string, number>
  #leftInAll: number
  #leftFree: number

  constructor(input: PolicyInput<C>) {
    this.#input = input
    for (const { namespace, needs } of input.candidates) {
      for (const digest of needs.keys()) {
        const key = keyOf(namespace, digest)
        this.#needers.set(key, (this.#needers.get(key) ?? 0) + 1)
      }
    }
    this.#left = new Map(input.excess.namespaces)
    this.#leftInAll = input.excess.inAll
    this.#leftFree = input.excess.free
  }

  /** Why this image may have to go for space; undefined when it need not. */
  reasonFor({ namespace }: C): EvictionReason | undefined {
    if ((this.#left.get(namespace) ?? 0) > 0) return 'quota'
    if (this.#leftInAll > 0) return 'quotaInAll'
    return this.#leftFree > 0 ? 'free' : undefined
  }

  take(image: C, reason: EvictionReason): void {
    const { namespace, needs, key } = image
    if (this.#taken.has(key)) return
    const freed = [...needs].filter(([digest]) => this.#isLast(namespace, digest))
    if (freed.some(([digest]) => this.#input.isBusy(namespace, digest))) return
    this.#taken.add(key)
    for (const digest of needs.keys()) {
      const needed = keyOf(namespace, digest)
      this.#needers.set(needed, (this.#needers.get(needed) ?? 0) - 1)
    }
    const bytes = freed.reduce((sum, [, size]) => sum + size, 0)
    this.#left.set(namespace, (this.#left.get(namespace) ?? 0) - bytes)
    this.#leftInAll -= bytes
    this.#leftFree -= bytes
    this.victims.push({ image, reason, bytes })
  }

  #isLast(namespace: string, digest: Digest): boolean {
    return this.#needers.get(keyOf(namespace, digest)) === 1 && !this.#input.isNeededElsewhere(namespace, digest)
  }
}

function byUse(a: Candidate, b: Candidate): number {
  return a.usedAt - b.usedAt || a.seenAt - b.seenAt || compare(a.key, b.key)
}

function bySeen(a: Candidate, b: Candidate): number {
  return a.seenAt - b.seenAt || byUse(a, b)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function keyOf(namespace: string, digest: Digest): string {
  return `${namespace} ${digest}`
}
