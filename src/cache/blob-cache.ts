/**
 * Blobs of one namespace: a hit is a file, a miss joins or starts a `Fill`. Who may read comes first: bytes that are
 * here for one repository are served to another only after its own proof.
 */
import type { ByteSource } from '../async/byte-source.ts'
import type { Clock } from '../async/clock.ts'
import type { Interval } from '../async/intervals.ts'
import { Limiter } from '../async/limiter.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { codeOf, GatewayError } from '../errors.ts'
import { LRUCache } from 'lru-cache'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { FileStamp, Store, StoredBlob } from '../store/store.ts'
import type { BlobSession, Upstream } from '../upstream/upstream.ts'
import { Fill, HOLD_BACK_BYTES, type FillEvent, type FillSource } from './fill.ts'
import type { Membership } from './membership.ts'
import { NegativeCache } from './negative.ts'
import { PassThrough } from './pass-through.ts'
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
  /** Bytes that must stay free on the disk. */
  readonly freeFloorBytes: number
  /** No upstream call at all. */
  readonly isOffline: boolean
  readonly onFill: (
    digest: Digest,
    event: FillEvent | { readonly kind: 'started'; readonly repository: Repository },
  ) => void
}

export interface BlobRequest {
  readonly repository: Repository
  readonly digest: Digest
  /** The client's: ends its wait, never the fill. */
  readonly signal: AbortSignal
  /** Only some of the bytes are wanted: then the length is asked before any of them is fetched. Default false. */
  readonly isPartial?: boolean
}

export type BlobOutcome = 'hit' | 'miss' | 'joined' | 'bypass'

export interface OpenedBlob {
  readonly size: number
  readonly source: ByteSource
  readonly outcome: BlobOutcome
}

/** Verified stamps kept in memory: a hit costs no question to the ledger. */
const MAX_REMEMBERED_STAMPS = 100_000
const MAX_OPEN_ATTEMPTS = 3

export class BlobCache {
  readonly #options: BlobCacheOptions
  readonly #fills = new Map<Digest, Fill>()
  readonly #fillRepositories = new Map<Digest, Set<Repository>>()
  readonly #verified = new LRUCache<Digest, FileStamp>({ max: MAX_REMEMBERED_STAMPS })
  readonly #negative: NegativeCache
  readonly #proofs = new SingleFlight<number | undefined>()
  readonly #openings = new SingleFlight<{ readonly fill: Fill; readonly isNew: boolean }>()
  readonly #limiter: Limiter

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
    const stamp = await this.#options.store.statBlob(digest)
    if (stamp !== undefined && (await this.#isReadable(request))) return { size: stamp.size, outcome: 'hit' }
    const named = await this.#options.membership.namedBy(repository, digest)
    if (named !== undefined && (await this.#options.membership.isNamed(repository, 'blob', digest))) {
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
    for (let attempt = 0; attempt < MAX_OPEN_ATTEMPTS; attempt++) {
      const stored = await this.#openStored(request)
      if (stored !== undefined) return openHit(stored, select)
      const opened = await this.#openFill(request).catch((error: unknown) => this.#insteadOfFill(request, error))
      if ('size' in opened) return { size: opened.size, source: opened.through(select(opened.size)), outcome: 'bypass' }
      const { fill, isNew } = opened
      const size = fill.size ?? (await fill.sized(request.signal))
      if (!fill.isSettled) return { size, source: fill.reader(select(size)), outcome: isNew ? 'miss' : 'joined' }
      // It ended while we waited: what failed fails here too, what was committed is in the store now.
      await fill.done
    }
    throw new GatewayError('STORE_FAILED', `${request.digest}: stored ${MAX_OPEN_ATTEMPTS} times and gone each time`)
  }

  /** Brings the whole blob into the store without reading it; resolves when it is there. */
  async complete(request: BlobRequest): Promise<void> {
    if (await this.isHeld(request)) return
    const { fill } = await this.#openFill(request)
    await fill.complete(request.signal)
  }

  /** Whether a request would be a hit without any upstream call. */
  async isHeld(request: Omit<BlobRequest, 'signal'>): Promise<boolean> {
    const { repository, digest } = request
    if ((await this.#options.store.statBlob(digest)) === undefined) return false
    const { membership } = this.#options
    return (await membership.isLinked(repository, 'blob', digest)) || membership.isNamed(repository, 'blob', digest)
  }

  get activeFills(): number {
    return this.#fills.size
  }

  /** Stops every fill; what is here stays for the next run. */
  async close(): Promise<void> {
    const reason = new GatewayError('OVERLOADED', `${this.#options.namespace}: the gateway is stopping`, {
      retryAfterMs: 1_000,
    })
    await Promise.all([...this.#fills.values()].map((fill) => fill.stop(reason)))
  }

  /** With no room to store it a blob is served through: checked as a fill is, kept by nobody. */
  async #insteadOfFill(
    request: BlobRequest,
    error: unknown,
  ): Promise<{ size: number; through: (spans: readonly Interval[]) => ByteSource }> {
    if (codeOf(error) !== 'STORE_FULL') throw error
    const { repository, digest, signal } = request
    const size = (await this.#options.membership.namedBy(repository, digest))?.size ?? (await this.#prove(request))
    if (size === undefined) throw error
    return {
      size,
      through: (spans) => new PassThrough({ digest, size, spans, signal, source: this.#sourceOf(repository, digest) }),
    }
  }

  /** A stored and verified blob that this repository may read; undefined on a miss. */
  async #openStored(request: BlobRequest): Promise<StoredBlob | undefined> {
    const { digest } = request
    const { store } = this.#options
    const running = this.#fills.get(digest)
    if (running !== undefined && !running.isSettled) return undefined
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
        return (await this.#options.upstream.headBlob(repository, digest, { signal: shared })).size
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
  async #openFill(request: BlobRequest): Promise<{ readonly fill: Fill; readonly isNew: boolean }> {
    const { digest, signal } = request
    const running = this.#fills.get(digest)
    if (running !== undefined && !running.isSettled) {
      await this.#admit(request)
      if (!running.isSettled) return { fill: running, isNew: false }
    }
    let isLeader = false
    const opened = await this.#openings.join(digest, signal, async (shared) => {
      isLeader = true
      return { fill: await this.#startFill({ ...request, signal: shared }), isNew: true }
    })
    if (!isLeader) await this.#admit(request)
    return { fill: opened.fill, isNew: isLeader }
  }

  /** Lets another repository read a fill under way, after its own proof. */
  async #admit(request: BlobRequest): Promise<void> {
    const { repository, digest } = request
    const admitted = this.#fillRepositories.get(digest)
    if (admitted?.has(repository)) return
    if (!(await this.#options.membership.isNamed(repository, 'blob', digest))) await this.#prove(request)
    const repositories = this.#fillRepositories.get(digest)
    if (repositories !== undefined) repositories.add(repository)
    else if ((await this.#options.store.statBlob(digest)) !== undefined)
      await this.#options.store.writeLink(repository, 'blob', digest)
  }

  async #startFill(request: BlobRequest): Promise<Fill> {
    const { repository, digest } = request
    const { store, membership } = this.#options
    const local = await this.#startVerification(request)
    if (local !== undefined) return local
    const key = `${repository}@${digest}`
    this.#negative.check(key)
    this.#refuseOffline(repository, digest)
    const slot = await this.#limiter.acquire(request.signal)
    try {
      const named = await membership.namedBy(repository, digest)
      await this.#reserve(digest, named?.size ?? 0)
      const incoming = await store.openIncoming(digest)
      const isProven = await membership.isNamed(repository, 'blob', digest)
      // Without a shared right the transfer's own 2xx is the proof; bytes an earlier run left need one of their own.
      if (!isProven && incoming.held.bytes > 0) {
        await this.#prove(request).catch(async (error: unknown) => {
          await incoming.keep()
          throw error
        })
      }
      const told = named?.size ?? (request.isPartial === true ? await this.#prove(request) : undefined)
      // Nothing is fetched of an empty blob, so nothing would prove it.
      const size = told === 0 ? undefined : told
      const fill = this.#register(repository, digest, { incoming, size, source: this.#sourceOf(repository, digest) })
      fill.done.catch((error: unknown) => this.#negative.remember(key, error)).finally(() => slot[Symbol.dispose]())
      return fill
    } catch (error) {
      slot[Symbol.dispose]()
      throw error
    }
  }

  /** Refuses a fill that the disk has no room for beside the ones under way. */
  async #reserve(digest: Digest, bytes: number): Promise<void> {
    const { store, freeFloorBytes, namespace } = this.#options
    const promised = [...this.#fills.values()].reduce((sum, fill) => sum + fill.missingBytes, 0)
    const free = await store.freeBytes()
    if (free - promised - bytes >= freeFloorBytes) return
    const text = `${namespace}/${digest}: ${bytes} bytes, ${free} free on the disk, ${promised} promised to others`
    throw new GatewayError('STORE_FULL', text)
  }

  /**
   * Bytes that are here but not verified (adopted, ledger lost, changed, after an unclean stop) are served as a fill
   * whose source is the local file. Short ones are verified before the reply, so that wrong ones are fetched instead.
   */
  async #startVerification(request: BlobRequest): Promise<Fill | undefined> {
    const { repository, digest } = request
    const { store } = this.#options
    const stamp = await store.statBlob(digest)
    if (stamp === undefined || !(await this.#isReadable(request))) return undefined
    const incoming = await store.openUnverified(digest)
    if (incoming === undefined) return undefined
    const fill = this.#register(repository, digest, { incoming, size: stamp.size, source: undefined })
    if (stamp.size > HOLD_BACK_BYTES) return fill
    return fill.complete(request.signal).then(
      () => fill,
      () => undefined,
    )
  }

  #register(
    repository: Repository,
    digest: Digest,
    parts: Pick<ConstructorParameters<typeof Fill>[0], 'incoming' | 'size' | 'source'>,
  ): Fill {
    const { schedule: policy, graceMs, random, onFill } = this.#options
    this.#fillRepositories.set(digest, new Set([repository]))
    const fill = new Fill({
      ...parts,
      digest,
      policy,
      graceMs,
      random,
      onVerified: (stamp, durable) => this.#onVerified(digest, stamp, durable),
      onEvent: (event) => onFill(digest, event),
    })
    this.#fills.set(digest, fill)
    onFill(digest, { kind: 'started', repository })
    const forget = (): void => {
      if (this.#fills.get(digest) === fill) this.#fills.delete(digest)
      this.#fillRepositories.delete(digest)
    }
    fill.done.then(forget, forget)
    return fill
  }

  #sourceOf(repository: Repository, digest: Digest): FillSource {
    const session: BlobSession = {}
    return { open: (range, signal) => this.#options.upstream.openBlob(repository, digest, { range, signal, session }) }
  }

  async #onVerified(digest: Digest, stamp: FileStamp, durable: Promise<boolean>): Promise<void> {
    const { store, ledger, namespace } = this.#options
    this.#verified.set(digest, stamp)
    for (const repository of this.#fillRepositories.get(digest) ?? []) await store.writeLink(repository, 'blob', digest)
    // The mark is written once the bytes are durable, so that what a crash leaves unsynced is verified again.
    void durable.then((isDurable) => {
      if (isDurable) ledger.writeVerified(namespace, digest, stamp)
    })
  }
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
