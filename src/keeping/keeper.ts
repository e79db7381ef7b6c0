/**
 * Keeps the disk: makes room before a body is written, evicts what nobody uses, sweeps what nobody needs. One eviction
 * runs at a time, in the background of every pull but the one that waits for its room.
 */
import { delay } from '../async/abort.ts'
import type { Clock } from '../async/clock.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { readLeastUsed, type HeldImage, type Inventory } from './inventory.ts'
import type { KeepingObserver, KeptNamespace } from './namespace.ts'
import { planEviction, type Excess, type Victim } from './policy.ts'
import { removeImage } from './removal.ts'
import { hasExcess, Room, type Reservation, type RoomLimits } from './room.ts'
import { sweepNamespace, type SweepReport } from './sweep.ts'

export interface KeeperOptions extends RoomLimits {
  readonly ledger: Ledger
  readonly observe: KeepingObserver
  /**
   * Lets the ledger know what the folder holds and it does not, such as what somebody copied in: the folder is the truth,
   * and a sweep must not take for needless what is only unknown.
   */
  readonly learn: (namespace: KeptNamespace, signal: AbortSignal) => Promise<unknown>
  readonly clock: Clock
  readonly random: () => number
  /** An image used since is not evicted for space: its pull may be under way. Default: 5 min. */
  readonly imageMinAgeMs?: number
  /** A blob younger than this is not swept: its manifest may be on its way. Default: 1 h. */
  readonly orphanMinAgeMs?: number
  /** Between two looks at idle images and limits. Default: 5 min. */
  readonly intervalMs?: number
  /** Between two sweeps. Default: 24 h. */
  readonly sweepIntervalMs?: number
  /** Before the first sweep. Default: 1 min. */
  readonly startDelayMs?: number
}

const MINUTE_MS = 60_000
const IMAGE_MIN_AGE_MS = 5 * MINUTE_MS
const ORPHAN_MIN_AGE_MS = 60 * MINUTE_MS
const INTERVAL_MS = 5 * MINUTE_MS
const SWEEP_INTERVAL_MS = 24 * 60 * MINUTE_MS
/** What interrupted bodies may take while nothing is short, and for how long: as `FsStore` allows at its start. */
const LEFTOVERS = { maxBytes: 10 * 1024 ** 3, maxAgeMs: 7 * 24 * 60 * MINUTE_MS }
/** Images read at a time of each namespace. */
const PAGE = 200
const MAX_RESERVE_ATTEMPTS = 4
/** After an eviction that found nothing to evict, the next bodies are served through without another look. */
const BARREN_MS = 2_000

export class Keeper implements AsyncDisposable {
  readonly #options: KeeperOptions
  readonly #namespaces = new Map<string, KeptNamespace>()
  readonly #room: Room
  readonly #closing = new AbortController()
  readonly #changes = new Line()
  /** Apart from evictions: a sweep of a million blobs must not keep a pull from its room. */
  readonly #sweeps = new Line()
  #loop: Promise<void> | undefined
  #isPressing = false
  /** By namespace: until when another look would find nothing to evict. */
  readonly #barrenUntil = new Map<string, number>()

  constructor(options: KeeperOptions) {
    this.#options = options
    this.#room = new Room(options, this.#namespaces)
  }

  /**
   * Keeps a namespace from now on. Resolves, without ever rejecting, when its size is known as far as the ledger knows it;
   * what it really takes is known after the first sweep.
   */
  async add(namespace: KeptNamespace): Promise<void> {
    this.#namespaces.set(namespace.name, namespace)
    // A manifest is written without waiting for room: what it takes is made good afterwards.
    namespace.usage.watch(() => {
      if (this.#room.isOverfull(namespace)) this.#press()
    })
    await this.#estimate(namespace)
    await this.measureLeftovers(namespace.name)
  }

  remove(name: string): void {
    this.#namespaces.delete(name)
    this.#barrenUntil.delete(name)
  }

  get namespaces(): readonly KeptNamespace[] {
    return [...this.#namespaces.values()]
  }

  namespace(name: string): KeptNamespace | undefined {
    return this.#namespaces.get(name)
  }

  /** Begins to look after things by itself, until it is disposed. */
  start(): void {
    this.#loop ??= this.#look().catch((error: unknown) => this.#failed('look after the store', error))
  }

  /**
   * Sets room for a body aside, after evicting where that makes room and `mayEvict` says so. Undefined: there is none.
   * Never rejects for want of room.
   */
  async reserve(
    name: string,
    bytes: number,
    { mayEvict }: { readonly mayEvict: boolean },
  ): Promise<Reservation | undefined> {
    const namespace = this.#namespaces.get(name)
    if (namespace === undefined || !this.#room.couldHold(namespace, bytes)) return undefined
    for (let attempt = 0; attempt < MAX_RESERVE_ATTEMPTS; attempt++) {
      const reservation = this.#room.tryReserve(namespace, bytes, await namespace.store.freeBytes())
      if (reservation !== undefined) return reservation
      if (!mayEvict || this.#isBarren(name) || this.#closing.signal.aborted) return undefined
      await this.#changes
        .run(() => this.#makeRoom(namespace, bytes))
        .catch((error: unknown) => {
          // Without room the body is served through: no pull fails because nothing could be evicted.
          this.#barrenUntil.set(name, performance.now() + BARREN_MS)
          this.#failed('evict', error, namespace)
        })
    }
    return undefined
  }

  /** One look: drops old leftovers, evicts what is idle, and gets below every limit that is exceeded. */
  async keep(): Promise<void> {
    await this.#changes.run(async () => {
      for (const name of this.#namespaces.keys()) await this.measureLeftovers(name)
      await this.#evict({ excess: () => this.#excess(false), withIdle: true })
    })
  }

  /** Counts what interrupted bodies of a namespace take. */
  async measureLeftovers(name: string): Promise<void> {
    const namespace = this.#namespaces.get(name)
    if (namespace === undefined) return
    const bytes = await namespace.store.trimLeftovers(LEFTOVERS).catch(() => undefined)
    if (bytes !== undefined) namespace.usage.setLeftovers(bytes)
  }

  /** Sweeps one namespace. Undefined: its references are not all known now. */
  async sweep(
    namespace: KeptNamespace,
    { isDry, minAgeMs }: { readonly isDry: boolean; readonly minAgeMs?: number },
  ): Promise<SweepReport | undefined> {
    return this.#sweeps.run(async () => {
      const { ledger, observe, learn, clock, orphanMinAgeMs = ORPHAN_MIN_AGE_MS } = this.#options
      const { signal } = this.#closing
      if (!(await ledger.isComplete(namespace.name))) return undefined
      await learn(namespace, signal)
      const now = clock.now()
      const report = await sweepNamespace({
        namespace,
        ledger,
        observe,
        now,
        minAgeMs: minAgeMs ?? orphanMinAgeMs,
        isDry,
        signal,
      })
      if (report !== undefined && !isDry && (report.orphans > 0 || report.links > 0)) {
        const { orphans: blobs, orphanBytes: bytes, links } = report
        observe(namespace, { kind: 'swept', blobs, bytes, links })
      }
      return report
    })
  }

  /** Runs what changes the store by the operator's word, while nothing else is evicted. */
  runAlone<T>(work: () => Promise<T>): Promise<T> {
    return this.#changes.run(work)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new DOMException('the gateway is stopping', 'AbortError'))
    await Promise.allSettled([this.#loop, this.#changes.last, this.#sweeps.last])
  }

  async #look(): Promise<void> {
    const { intervalMs = INTERVAL_MS, sweepIntervalMs = SWEEP_INTERVAL_MS, startDelayMs = MINUTE_MS } = this.#options
    const { signal } = this.#closing
    let sweptAt = -Infinity
    await this.#wait(startDelayMs)
    while (!signal.aborted) {
      if (performance.now() - sweptAt >= sweepIntervalMs) {
        sweptAt = performance.now()
        for (const namespace of this.namespaces) {
          await this.sweep(namespace, { isDry: false }).catch((error: unknown) =>
            this.#failed('sweep', error, namespace),
          )
        }
      }
      await this.keep().catch((error: unknown) => this.#failed('evict', error))
      await this.#wait(intervalMs)
    }
  }

  /** Spread by a tenth, so that gateways that start together do not sweep together. */
  async #wait(ms: number): Promise<void> {
    await delay(ms * (0.95 + this.#options.random() / 10), this.#closing.signal).catch(() => undefined)
  }

  async #makeRoom(namespace: KeptNamespace, bytes: number): Promise<void> {
    const excess = async (): Promise<Excess> =>
      this.#room.excessFor(namespace, bytes, await namespace.store.freeBytes())
    if (!hasExcess(await excess())) return
    // A body that nobody finished is worth less than any whole image.
    namespace.usage.setLeftovers(await namespace.store.trimLeftovers({ maxBytes: 0, maxAgeMs: 0 }))
    await this.#evict({ excess, withIdle: false })
    if (hasExcess(await excess())) this.#barrenUntil.set(namespace.name, performance.now() + BARREN_MS)
    else this.#press()
  }

  #isBarren(name: string): boolean {
    return performance.now() < (this.#barrenUntil.get(name) ?? 0)
  }

  /** A limit was reached: goes on to its low mark without anybody waiting for it. */
  #press(): void {
    if (this.#isPressing) return
    this.#isPressing = true
    const work = this.#changes.run(async () => {
      this.#isPressing = false
      await this.#evict({ excess: () => this.#excess(true), withIdle: false })
    })
    work.catch((error: unknown) => this.#failed('evict', error))
  }

  async #excess(isPressed: boolean): Promise<Excess> {
    const [first] = this.#namespaces.values()
    const excess = this.#room.excess((await first?.store.freeBytes()) ?? Infinity, isPressed)
    // Then what is held is better kept: it is all that can still be served.
    return this.#room.isHopeless(excess) ? { ...excess, free: 0 } : excess
  }

  /** Evicts, the least recently used first, page by page, until nothing is too much or nothing may go. */
  async #evict({ excess, withIdle }: Goal): Promise<void> {
    const { ledger } = this.#options
    const known: KeptNamespace[] = []
    for (const namespace of this.#namespaces.values()) {
      if (await ledger.isComplete(namespace.name)) known.push(namespace)
    }
    const pages = new Map<KeptNamespace, string | undefined>(known.map((namespace) => [namespace, undefined]))
    while (pages.size > 0 && !this.#closing.signal.aborted) {
      const before = await excess()
      if (!withIdle && (!hasExcess(before) || this.#room.isHopeless(before))) return
      const read = await this.#readPages(pages, before, withIdle)
      let evicted = 0
      for (const victim of this.#plan(read, before, withIdle)) {
        if (victim.reason !== 'idle' && !isWanted(victim, await excess())) continue
        if (await this.#evictOne(victim)) evicted++
      }
      // What went may have freed less than planned: the same images are looked at again until none of them may go.
      if (evicted === 0) this.#turnPages(pages, read, before)
    }
  }

  /** A page of each namespace from which something may have to go. */
  async #readPages(
    pages: ReadonlyMap<KeptNamespace, string | undefined>,
    excess: Excess,
    withIdle: boolean,
  ): Promise<Map<KeptNamespace, Inventory>> {
    const read = new Map<KeptNamespace, Inventory>()
    for (const [namespace, after] of pages) {
      if (!isOver(namespace, excess) && !(withIdle && namespace.idleMs < Infinity)) continue
      const page = await readLeastUsed(namespace, this.#options.ledger, { after, limit: PAGE }).catch(
        (error: unknown) => this.#failed('read images', error, namespace),
      )
      if (page !== undefined) read.set(namespace, page)
    }
    return read
  }

  #turnPages(
    pages: Map<KeptNamespace, string | undefined>,
    read: ReadonlyMap<KeptNamespace, Inventory>,
    excess: Excess,
  ): void {
    for (const namespace of pages.keys()) {
      const page = read.get(namespace)
      if (page?.next === undefined || !this.#mayGo(namespace, page, isOver(namespace, excess))) pages.delete(namespace)
      else pages.set(namespace, page.next)
    }
  }

  /** Whether what comes after this page may be old enough to go. */
  #mayGo({ idleMs }: KeptNamespace, { images }: Inventory, forSpace: boolean): boolean {
    const age = this.#options.clock.now() - (images.at(-1)?.usedAt ?? 0)
    return age >= (forSpace ? (this.#options.imageMinAgeMs ?? IMAGE_MIN_AGE_MS) : idleMs)
  }

  #plan(read: ReadonlyMap<KeptNamespace, Inventory>, excess: Excess, withIdle: boolean): Victim<HeldImage>[] {
    const { clock, imageMinAgeMs = IMAGE_MIN_AGE_MS } = this.#options
    const byName = new Map([...read].map(([namespace, page]) => [namespace.name, { namespace, page }]))
    return planEviction({
      now: clock.now(),
      candidates: [...read.values()].flatMap(({ images }) => images),
      excess,
      idleMsOf: (name) => (withIdle ? (byName.get(name)?.namespace.idleMs ?? Infinity) : Infinity),
      minAgeMs: imageMinAgeMs,
      isBusy: (name, digest) => byName.get(name)?.namespace.caches.isBusy(digest) ?? true,
      isNeededElsewhere: (name, digest) => byName.get(name)?.page.neededElsewhere.has(digest) ?? true,
    })
  }

  /** Removes a victim unless somebody used it since it was chosen. */
  async #evictOne({ image, reason }: Victim<HeldImage>): Promise<boolean> {
    const { ledger, observe } = this.#options
    const namespace = this.#namespaces.get(image.namespace)
    if (namespace === undefined) return false
    for (const digest of image.needs.keys()) {
      // Only manifests have a use; the others are not known there.
      if (image.needs.size > MAX_RECHECKED && digest !== image.digest) continue
      const usage = await ledger.readUsage(namespace.name, image.repository, digest)
      if (usage !== undefined && usage.lastGetAt > image.usedAt) return false
    }
    try {
      const removed = await removeImage({ namespace, ledger, observe }, image, reason)
      if (removed === undefined) this.#failed('evict', new Error('the ledger does not answer'), namespace)
      return removed !== undefined
    } catch (error) {
      this.#failed('evict', error, namespace)
      return false
    }
  }

  async #estimate({ name, usage }: KeptNamespace): Promise<void> {
    usage.estimate((await this.#options.ledger.readVerifiedBytes(name).catch(() => 0)) ?? 0)
  }

  #failed(what: string, error: unknown, namespace?: KeptNamespace): undefined {
    if (!this.#closing.signal.aborted)
      this.#options.observe(namespace ?? { name: '', label: '' }, { kind: 'failed', what, error })
    return undefined
  }
}

interface Goal {
  readonly excess: () => Promise<Excess>
  readonly withIdle: boolean
}

/** One piece of work at a time, in the order they came. */
class Line {
  /** Ends with the last of them; never rejects. */
  last: Promise<unknown> = Promise.resolve()

  run<T>(work: () => Promise<T>): Promise<T> {
    const done = this.last.then(work)
    this.last = done.catch(() => undefined)
    return done
  }
}

/** Members of an image of which each is asked for its last use; of larger ones only the image itself is. */
const MAX_RECHECKED = 64

/** Whether bytes of this namespace are too many, its own or as a part of all. */
function isOver({ name }: { readonly name: string }, { namespaces, inAll, free }: Excess): boolean {
  return inAll > 0 || free > 0 || (namespaces.get(name) ?? 0) > 0
}

/** Whether something is still too much: what went before may have freed more than was planned. */
function isWanted({ image }: Victim<HeldImage>, excess: Excess): boolean {
  return isOver({ name: image.namespace }, excess)
}
