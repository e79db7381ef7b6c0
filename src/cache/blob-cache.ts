/**
 * Blobs of one namespace: a hit is a file, a miss joins or starts a `Fill`. Who may read comes first: bytes that are
 * here for one repository are served to another only after its own proof.
 */
import type { ByteSource } from '../async/byte-source.ts'
import type { Clock } from '../async/clock.ts'
import type { Guards } from '../async/guards.ts'
import type { Interval } from '../async/intervals.ts'
import { Limiter } from '../async/limiter.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { codeOf, GatewayError } from '../errors.ts'
import { LRUCache } from 'lru-cache'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { Committed, FileStamp, Store, StoredBlob } from '../store/store.ts'
import type { BlobSession, Upstream } from '../upstream/upstream.ts'
import { Fill, HOLD_BACK_BYTES, type FillEvent, type FillSource } from './fill.ts'
import { Fills, type OpenedFill, type RunningFill } from './fills.ts'
import type { Membership } from './membership.ts'
import { NegativeCache } from './negative.ts'
import { PassThrough } from './pass-through.ts'
import type { ReserveRoom, RoomReservation } from './room.ts'
import type { SchedulePolicy } from './schedule.ts'

export interface BlobCacheOptions {
  readonly namespace: string
  readonly store: Store
  readonly ledger: Ledger
  readonly upstream: Upstream
  readonly membership: Membership
  readonly clock: Clock
  readonly random: () => number
  readonly schedule: SchedulePolicy
  /** Fills under way at a time; more wait in a bounded line. */
  readonly maxFills: number
  readonly maxQueuedFills: number
  readonly graceMs: number
  readonly negativeTtlMs: number
  readonly reserveRoom: ReserveRoom
  /** Bytes were committed: `size` of them. */
  readonly onHeld: (digest: Digest, size: number) => void
  /** Held while a digest is looked at, so that it is not removed meanwhile. */
  readonly guards: Guards
  /** No upstream call at all. */
  readonly isOffline: boolean
  readonly onFill: (digest: Digest, event: BlobEvent) => void
}

export type BlobEvent =
  | FillEvent
  | { readonly kind: 'started'; readonly repository: Repository }
  /** The bytes are here, the link is not: the next request needs a proof again. */
  | { readonly kind: 'not_linked'; readonly repository: Repository; readonly error: unknown }

export interface BlobRequest {
  readonly repository: Repository
  readonly digest: Digest
  /** The client's: ends its wait, never the fill. */
  readonly signal: AbortSignal
  /** Only some of the bytes are wanted: then the length is asked before any of them is fetched. Default false. */
  readonly isPartial?: boolean
  /** Nobody waits for it: it is not worth an eviction. Default false. */
  readonly isBackground?: boolean
}

export type BlobOutcome = 'hit' | 'miss' | 'joined' | 'bypass'

export interface OpenedBlob {
  readonly size: number
  readonly source: ByteSource
  readonly outcome: BlobOutcome
}

/** Verified stamps kept in memory: a hit costs no question to the ledger. */
const MAX_REMEMBERED_STAMPS = 100_000
const MAX_OPEN_ATTEMPTS = 4
/** After the disk refused bytes although it seemed to have room (a quota): how long nothing is stored. */
const FULL_FOR_MS = 30_000

export class BlobCache {
  readonly #options: BlobCacheOptions
  readonly #fills = new Fills()
  readonly #verified = new LRUCache<Digest, FileStamp>({ max: MAX_REMEMBERED_STAMPS })
  readonly #negative: NegativeCache
  readonly #proofs = new SingleFlight<number | undefined>()
  readonly #limiter: Limiter
  /** How many read a digest's bytes now. */
  readonly #reading = new Map<Digest, number>()
  #fullUntil = 0
  #isClosed = false

  constructor(options: BlobCacheOptions) {
    this.#options = options
    this.#negative = new NegativeCache(options.clock, options.negativeTtlMs)
    this.#limiter = new Limiter({
      slots: options.maxFills,
      queue: options.maxQueuedFills,
      what: `${options.namespace}: blob transfers`,
    })
  }

  /** A blob's length, for HEAD. A blob that is not here is asked of the upstream or read from a manifest that names it. */
  async stat(request: BlobRequest): Promise<{ readonly size: number; readonly outcome: BlobOutcome }> {
    const { repository, digest, signal } = request
    using _hold = await this.#options.guards.hold(digest)
    const { store, membership } = this.#options
    const stamp = await store.statBlob(digest)
    const named = await membership.namedBy(repository, digest)
    if (stamp !== undefined && (await this.#isReadable(request))) {
      const isSure = named === undefined || (await this.#isVerified(digest, stamp))
      return { size: isSure ? stamp.size : named.size, outcome: 'hit' }
    }
    const running = this.#fills.get(digest)
    if (running !== undefined && (await this.#mayJoin(running, request))) {
      const { fill } = running
      await fill.answered(signal)
      if (fill.size !== undefined && !fill.isSettled) return { size: fill.size, outcome: 'joined' }
    }
    if (named !== undefined && (await membership.isNamed(repository, 'blob', digest))) {
      return { size: named.size, outcome: 'miss' }
    }
    const size = (await this.#prove(request)) ?? named?.size
    if (size !== undefined) return { size, outcome: 'miss' }
    const { fill } = await this.#openFill(request)
    return { size: await fill.sized(signal), outcome: 'miss' }
  }

  /**
   * Opens a blob. `select` gets its length and says which bytes the client will read, in ascending order; it may throw.
   * The caller closes the source.
   */
  async open(request: BlobRequest, select: (size: number) => readonly Interval[]): Promise<OpenedBlob> {
    using _hold = await this.#options.guards.hold(request.digest)
    for (let attempt = 0; attempt < MAX_OPEN_ATTEMPTS; attempt++) {
      const stored = await this.#openStored(request)
      if (stored !== undefined) return this.#read(request.digest, await openHit(stored, select))
      const opened = await this.#openThrough(request, select)
      if (opened !== undefined) return this.#read(request.digest, opened)
    }
    throw new GatewayError('STORE_FAILED', `${request.digest}: stored ${MAX_OPEN_ATTEMPTS} times and gone each time`)
  }

  /** Brings the whole blob into the store without reading it; resolves when it is there. */
  async complete(request: BlobRequest): Promise<void> {
    using _hold = await this.#options.guards.hold(request.digest)
    if (await this.isHeld(request)) return
    const { fill } = await this.#openFill({ ...request, isBackground: true })
    await fill.complete(request.signal)
  }

  /** Whether a request would be a hit without any upstream call. */
  async isHeld(request: Omit<BlobRequest, 'signal'>): Promise<boolean> {
    const { repository, digest } = request
    if ((await this.#options.store.statBlob(digest)) === undefined) return false
    const { membership } = this.#options
    return (await membership.isLinked(repository, 'blob', digest)) || membership.isNamed(repository, 'blob', digest)
  }

  /** Whether the blob is being filled, opened or read. */
  isBusy(digest: Digest): boolean {
    return this.#fills.get(digest) !== undefined || this.#options.guards.isHeld(digest) || this.#reading.has(digest)
  }

  /**
   * Runs `remove` while nobody fills or opens the blob; who asks for it meanwhile waits, and finds it gone. Undefined,
   * having done nothing, when somebody does, or reads it: an open file would keep its place on the disk.
   */
  async removeUnused<T>(
    digest: Digest,
    remove: () => Promise<T>,
    { evenIfRead = false }: { readonly evenIfRead?: boolean } = {},
  ): Promise<T | undefined> {
    return this.#options.guards.runAlone(digest, async () => {
      if (this.#fills.get(digest) !== undefined || (!evenIfRead && this.#reading.has(digest))) return undefined
      this.#verified.delete(digest)
      return remove()
    })
  }

  /** The upstream took back what `repository` may read: fills under way are not for it any more. */
  revoke(repository: Repository): void {
    this.#fills.exclude(repository)
  }

  /** Bytes that fills under way will still write. */
  get missingBytes(): number {
    return this.#fills.missingBytes
  }

  /** Stops every fill; what is here stays for the next run. */
  async close(): Promise<void> {
    this.#isClosed = true
    // Openings wait for the slots of fills, and may bring one more.
    await this.#stopFills()
    await this.#fills.opened()
    await this.#stopFills()
  }

  async #stopFills(): Promise<void> {
    await Promise.all([...this.#fills].map((fill) => fill.stop(this.#stopping())))
  }

  #stopping(): GatewayError {
    return new GatewayError('OVERLOADED', `${this.#options.namespace}: the gateway is stopping`, {
      retryAfterMs: 1_000,
    })
  }

  /** Counts a reader until it closes its source. */
  #read(digest: Digest, opened: OpenedBlob): OpenedBlob {
    const { source } = opened
    this.#reading.set(digest, (this.#reading.get(digest) ?? 0) + 1)
    let isOpen = true
    const close = async (): Promise<void> => {
      if (isOpen) this.#countDown(digest)
      isOpen = false
      await source.close()
    }
    return { ...opened, source: { size: source.size, read: source.read.bind(source), close } }
  }

  #countDown(digest: Digest): void {
    const left = (this.#reading.get(digest) ?? 0) - 1
    if (left > 0) this.#reading.set(digest, left)
    else this.#reading.delete(digest)
  }

  /** Reads from a fill, or past the store where that has no room. Undefined: it is stored now, or to be tried again. */
  async #openThrough(
    request: BlobRequest,
    select: (size: number) => readonly Interval[],
  ): Promise<OpenedBlob | undefined> {
    let opened: OpenedFill | undefined
    try {
      opened = await this.#openFill(request)
      const { fill, isNew } = opened
      const size = fill.size ?? (await fill.sized(request.signal))
      // Of an empty body nothing is read, so nothing would wait for its verification.
      if (size > 0 && !fill.isSettled) {
        return { size, source: fill.reader(select(size)), outcome: isNew ? 'miss' : 'joined' }
      }
      await fill.complete(request.signal)
      return undefined
    } catch (error) {
      if (codeOf(error) === 'STORE_FULL') return this.#passThrough(request, error, select)
      if (opened === undefined || request.signal.aborted || !isAnothers(opened, request, error)) throw error
      return undefined
    }
  }

  /** With no room to store it a blob is served through: checked as a fill is, kept by nobody. */
  async #passThrough(
    request: BlobRequest,
    error: unknown,
    select: (size: number) => readonly Interval[],
  ): Promise<OpenedBlob> {
    const { repository, digest, signal } = request
    const size = (await this.#options.membership.namedBy(repository, digest))?.size ?? (await this.#prove(request))
    if (size === undefined || size === 0) throw error
    const spans = select(size)
    const source = new PassThrough({ digest, size, spans, signal, source: this.#sourceOf(repository, digest) })
    return { size, source, outcome: 'bypass' }
  }

  /** A stored and verified blob that this repository may read; undefined on a miss. */
  async #openStored(request: BlobRequest): Promise<StoredBlob | undefined> {
    const { digest } = request
    const { store } = this.#options
    if (this.#fills.get(digest) !== undefined) return undefined
    if ((await store.statBlob(digest)) === undefined || !(await this.#isReadable(request))) return undefined
    const blob = await store.openBlob(digest)
    if (blob === undefined || (await this.#isVerified(digest, blob.stamp))) return blob
    await blob.close()
    return undefined
  }

  /** Whether this repository may read bytes that are here, asking the upstream when nothing else proves it. */
  async #isReadable(request: BlobRequest): Promise<boolean> {
    const { repository, digest } = request
    const { membership, store } = this.#options
    if (await membership.isLinked(repository, 'blob', digest)) return true
    if (!(await membership.isNamed(repository, 'blob', digest))) await this.#prove(request)
    await store.writeLink(repository, 'blob', digest)
    return true
  }

  /** Asks the upstream whether `repository` has `digest`; resolves to its size if told, rejects when it has not. */
  async #prove({ repository, digest, signal }: BlobRequest): Promise<number | undefined> {
    const key = `${repository}@${digest}`
    this.#negative.check(key)
    this.#refuseOffline(repository, digest)
    return this.#proofs.join(key, signal, async (shared) => {
      try {
        const { size } = await this.#options.upstream.headBlob(repository, digest, { signal: shared })
        // Registries that do not know say 0. Only one blob is empty, and its transfer costs nothing.
        return size === 0 ? undefined : size
      } catch (error) {
        throw this.#negative.remember(key, error)
      }
    })
  }

  #refuseOffline(repository: Repository, digest: Digest): void {
    if (!this.#options.isOffline) return
    const { namespace } = this.#options
    throw new GatewayError(
      'OFFLINE',
      `${namespace}/${repository}@${digest}: not held, and ${namespace} is configured offline`,
    )
  }

  async #isVerified(digest: Digest, stamp: FileStamp): Promise<boolean> {
    const { ledger, namespace } = this.#options
    const mark = this.#verified.get(digest) ?? (await ledger.readVerified(namespace, digest))
    if (mark === undefined || mark.size !== stamp.size || mark.mtimeMs !== stamp.mtimeMs) return false
    this.#verified.set(digest, stamp)
    return true
  }

  /** The one fill of this digest: joined where the repository has its own proof, else started. */
  async #openFill(request: BlobRequest): Promise<OpenedFill> {
    const { digest, signal } = request
    for (;;) {
      signal.throwIfAborted()
      const running = this.#fills.get(digest)
      if (running !== undefined && (await this.#mayJoin(running, request))) return { ...running, isNew: false }
      const opened = await this.#fills.open(request, (shared) => this.#startFill({ ...request, signal: shared }))
      if (opened !== undefined && (opened.isNew || (await this.#mayJoin(opened, request)))) return opened
    }
  }

  /** Lets a repository read a fill that another one leads, after its own proof. False: that fill is not for it. */
  async #mayJoin({ fill, leader, repositories }: RunningFill, request: BlobRequest): Promise<boolean> {
    const { repository, digest, signal } = request
    if (repository === leader && repositories.has(repository)) return true
    const { membership, store } = this.#options
    if (!repositories.has(repository) && !(await membership.isNamed(repository, 'blob', digest))) {
      await this.#prove(request)
    }
    // The transfer is made with the leader's right. What refuses the leader is no answer to others.
    await fill.answered(signal)
    if (!fill.isSettled) repositories.add(repository)
    else if ((await store.statBlob(digest)) !== undefined) await store.writeLink(repository, 'blob', digest)
    else return false
    return true
  }

  async #startFill(request: BlobRequest): Promise<RunningFill> {
    const { repository, digest, signal } = request
    if (this.#isClosed) throw this.#stopping()
    const local = await this.#startVerification(request)
    if (local !== undefined) return local
    const key = `${repository}@${digest}`
    this.#negative.check(key)
    this.#refuseOffline(repository, digest)
    const slot = await this.#limiter.acquire(signal)
    try {
      if (this.#isClosed) throw this.#stopping()
      const running = await this.#startTransfer(request)
      running.fill.done
        .catch((error: unknown) => {
          this.#negative.remember(key, error)
          // With a cause the disk said so, against what it had told of its free space.
          const isRefused = codeOf(error) === 'STORE_FULL' && error instanceof Error && error.cause !== undefined
          if (isRefused) this.#fullUntil = this.#options.clock.now() + FULL_FOR_MS
        })
        .finally(() => slot[Symbol.dispose]())
      return running
    } catch (error) {
      slot[Symbol.dispose]()
      throw error
    }
  }

  async #startTransfer(request: BlobRequest): Promise<RunningFill> {
    const { repository, digest } = request
    const { store, membership } = this.#options
    const named = await membership.namedBy(repository, digest)
    const mayEvict = request.isBackground !== true
    const room = await this.#reserve(digest, named?.size ?? 0, mayEvict)
    const incoming = await store.openIncoming(digest).catch((error: unknown) => {
      room[Symbol.dispose]()
      throw error
    })
    try {
      const hasLeftovers = incoming.held.bytes > 0
      const isProven = await membership.isNamed(repository, 'blob', digest)
      // Without a shared right the transfer's own 2xx is the proof; bytes an earlier run left need one of their own.
      // A range needs the length before its first byte, and so does going on behind what is here.
      const asks = (hasLeftovers && !isProven) || (named === undefined && (hasLeftovers || request.isPartial === true))
      const told = asks ? await this.#prove(request) : undefined
      const size = named?.size ?? told
      if (this.#isClosed) throw this.#stopping()
      const source = this.#sourceOf(repository, digest)
      // Nothing is fetched of an empty blob whose length is known, so nothing would prove it.
      const running = this.#register(repository, digest, {
        incoming,
        size: size === 0 ? undefined : size,
        source,
        reserve: (bytes) => this.#reserve(digest, bytes, mayEvict),
      })
      this.#holdRoom(room, running.fill)
      return running
    } catch (error) {
      room[Symbol.dispose]()
      await incoming.keep()
      throw error
    }
  }

  /** Sets room for a body aside. Rejects with STORE_FULL where there is none. */
  async #reserve(digest: Digest, bytes: number, mayEvict: boolean): Promise<RoomReservation> {
    const { reserveRoom, namespace, clock } = this.#options
    const isFull = clock.now() < this.#fullUntil
    const room = isFull ? undefined : await reserveRoom(bytes, { mayEvict })
    if (room !== undefined) return room
    throw new GatewayError(
      'STORE_FULL',
      `${namespace}/${digest}: no room for ${bytes} bytes within keep.quota and keep.free, and nothing that may go`,
    )
  }

  #holdRoom(room: RoomReservation, fill: Fill): void {
    room.track(() => fill.missingBytes)
    fill.done.catch(() => undefined).finally(() => room[Symbol.dispose]())
  }

  /**
   * Bytes that are here but not verified (adopted, ledger lost, changed, after an unclean stop) are served as a fill
   * whose source is the local file. Short ones are verified before the reply, so that wrong ones are fetched instead.
   */
  async #startVerification(request: BlobRequest): Promise<RunningFill | undefined> {
    const { repository, digest } = request
    const { store } = this.#options
    const stamp = await store.statBlob(digest)
    if (stamp === undefined || !(await this.#isReadable(request))) return undefined
    const incoming = await store.openUnverified(digest)
    if (incoming === undefined) return undefined
    const running = this.#register(repository, digest, {
      incoming,
      size: stamp.size,
      source: undefined,
      // Its bytes are counted already.
      reserve: () => Promise.resolve({ track: () => undefined, [Symbol.dispose]: () => undefined }),
    })
    if (stamp.size > HOLD_BACK_BYTES) return running
    return running.fill.complete(request.signal).then(
      () => running,
      (error: unknown) => {
        if (request.signal.aborted) throw error
        return undefined
      },
    )
  }

  #register(
    leader: Repository,
    digest: Digest,
    {
      reserve,
      ...parts
    }: Pick<ConstructorParameters<typeof Fill>[0], 'incoming' | 'size' | 'source'> & {
      readonly reserve: (bytes: number) => Promise<RoomReservation>
    },
  ): RunningFill {
    const { schedule: policy, graceMs, random, onFill } = this.#options
    const repositories = new Set([leader])
    const fill: Fill = new Fill({
      ...parts,
      digest,
      policy,
      graceMs,
      random,
      reserve: async (bytes) => this.#holdRoom(await reserve(bytes), fill),
      onVerified: (stamp, durable) => {
        const isNew = parts.source !== undefined
        return this.#onVerified(digest, { repositories, isNew }, { stamp, durable })
      },
      onEvent: (event) => onFill(digest, event),
    })
    onFill(digest, { kind: 'started', repository: leader })
    return this.#fills.add({ fill, leader, repositories })
  }

  #sourceOf(repository: Repository, digest: Digest): FillSource {
    const session: BlobSession = {}
    return {
      open: (range, signal) => this.#options.upstream.openBlob(repository, digest, { range, signal, session }),
      blame: () => session.blame?.(),
    }
  }

  async #onVerified(
    digest: Digest,
    { repositories, isNew }: { readonly repositories: ReadonlySet<Repository>; readonly isNew: boolean },
    committed: Committed,
  ): Promise<void> {
    const { store, ledger, namespace, onFill, onHeld } = this.#options
    const { stamp, durable } = committed
    this.#verified.set(digest, stamp)
    if (isNew) onHeld(digest, stamp.size)
    for (const repository of repositories) {
      // Who reads now has its right from the upstream; a disk that takes no link must not cut it off.
      await store
        .writeLink(repository, 'blob', digest)
        .catch((error: unknown) => onFill(digest, { kind: 'not_linked', repository, error }))
    }
    // The mark is written once the bytes are durable, so that what a crash leaves unsynced is verified again.
    void durable.then((isDurable) => {
      if (isDurable) ledger.writeVerified(namespace, digest, stamp)
    })
  }
}

/** Whether a fill's failure says nothing about this request, which then goes its own way. */
function isAnothers({ fill, leader }: RunningFill, { repository }: BlobRequest, error: unknown): boolean {
  const code = codeOf(error)
  if (code === undefined || !fill.isSettled) return false
  if (fill.isAbandoned || fill.isLocal) return true
  return repository !== leader && (code === 'BLOB_UNKNOWN' || code === 'NAME_UNKNOWN' || code === 'UPSTREAM_DENIED')
}

async function openHit(blob: StoredBlob, select: (size: number) => readonly Interval[]): Promise<OpenedBlob> {
  try {
    select(blob.size)
  } catch (error) {
    await blob.close()
    throw error
  }
  return { size: blob.size, source: blob, outcome: 'hit' }
}
