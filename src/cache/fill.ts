/**
 * One blob on its way into the store: an incoming file, the intervals it holds, and any number of readers. Readers say
 * what they want; the fill fetches what is wanted first and then the rest. It belongs to the cache and outlives clients.
 *
 * The hash follows the contiguous front. Bytes of a body that reaches the blob's end are held back at its tail until
 * the digest is right, so that no client ever holds a complete body that is wrong.
 */
import { abortable } from '../async/abort.ts'
import type { ByteSource } from '../async/byte-source.ts'
import type { Interval } from '../async/intervals.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { FileStamp, Incoming } from '../store/store.ts'
import type { BlobRange, BlobStream } from '../upstream/upstream.ts'
import { openHedged } from './hedge.ts'
import { Resumption } from './resumption.ts'
import { isArriving, planTransfer, type Part, type SchedulePolicy, type Want } from './schedule.ts'
import { lengthOf, Transfer } from './transfer.ts'

/** The tail of a body that waits for the digest. Small enough to be lost in a pull, large enough to matter to nobody. */
export const HOLD_BACK_BYTES = 256 * 1024
/** With less than this missing an abandoned fill finishes. */
const FINISH_BELOW_BYTES = 16 * 1024 * 1024
/** After these the bytes here are worth nothing, or the disk needs their room. */
const KEEPS_NOTHING: ReadonlySet<string> = new Set(['UPSTREAM_INVALID', 'STORE_FULL'] satisfies ErrorCode[])
/** A registry that fetches from cold storage may take a minute; one that hangs is overtaken. */
const HEDGE_AFTER_MS = 10_000
/** Who opened a fill reads it within this. */
const IDLE_GRACE_MS = 100

export interface FillSource {
  /** Opens bytes of the blob. Rejects with the upstream's `GatewayError`. */
  open(range: BlobRange, signal: AbortSignal): Promise<BlobStream>
  /** Says that what it sent was not what the digest says. */
  blame?(): void
}

export type FillEvent =
  | { readonly kind: 'resumed'; readonly position: number; readonly reason: string }
  | { readonly kind: 'committed'; readonly bytes: number; readonly ms: number }
  | { readonly kind: 'failed'; readonly error: GatewayError }
  | { readonly kind: 'stopped'; readonly heldBytes: number }
  /** Bytes that were here already are not what their name says; they were moved aside. */
  | { readonly kind: 'quarantined'; readonly reason: string }

export interface FillOptions {
  readonly digest: Digest
  readonly incoming: Incoming
  /** Undefined for bytes that are all here and only need to be verified. */
  readonly source: FillSource | undefined
  /** Length in bytes, when a verified manifest names it. */
  readonly size: number | undefined
  readonly policy: SchedulePolicy
  /** How long a fill that nobody reads goes on before it is stopped, in ms: clients that retry come back at once. */
  readonly graceMs: number
  readonly random: () => number
  /** How long a transfer waits for its first byte before it is asked for a second time. Default 10 s. */
  readonly hedgeAfterMs?: number
  /** Sets room aside for a length that only the upstream told. Throws STORE_FULL: then nothing is written. */
  readonly reserve: (bytes: number) => Promise<void>
  /** Runs after the bytes got their final name and before the tail is released: here links are written. Never rejects. */
  readonly onVerified: (stamp: FileStamp, durable: Promise<boolean>) => Promise<void>
  readonly onEvent: (event: FillEvent) => void
}

interface Reader extends Want {
  waitingAt: number | undefined
  wake: () => void
  isClosed: boolean
}

export class Fill {
  readonly digest: Digest
  /** Resolves when the blob is in the store, rejects with a `GatewayError` when it will not be. */
  readonly done: Promise<void>
  readonly #options: FillOptions
  readonly #incoming: Incoming
  readonly #readers = new Set<Reader>()
  readonly #transfers = new Set<Transfer>()
  readonly #size = Promise.withResolvers<number>()
  readonly #answered = Promise.withResolvers<void>()
  readonly #done = Promise.withResolvers<void>()
  readonly #stopped = new AbortController()
  readonly #resumption: Resumption
  readonly #startedAt = performance.now()
  #knownSize: number | undefined
  #state: 'filling' | 'verifying' | 'committed' | 'failed' = 'filling'
  #error: GatewayError | undefined
  #wholeWanted = false
  #graceTimer: NodeJS.Timeout | undefined
  #isFileOpen = true
  #isAbandoned = false

  constructor(options: FillOptions) {
    this.#options = options
    this.#incoming = options.incoming
    this.#resumption = new Resumption(options.random)
    this.digest = options.digest
    this.done = this.#done.promise
    this.done.catch(() => undefined)
    this.#size.promise.catch(() => undefined)
    if (options.size !== undefined) this.#learnSize(options.size)
    if (options.source === undefined || this.#incoming.held.bytes > 0) this.#answered.resolve()
    this.#incoming.advance(this.#incoming.held.heldFrom(0))
    // Whoever opened it may be gone before it reads.
    this.#awaitReaders()
  }

  /** Whether it verifies bytes that were here already: its failure says nothing about the upstream. */
  get isLocal(): boolean {
    return this.#options.source === undefined
  }

  /** Whether it ended because nobody read it. */
  get isAbandoned(): boolean {
    return this.#isAbandoned
  }

  /** Resolves once the upstream has begun to send, so that it has it, or the fill has ended. `signal` ends this wait. */
  answered(signal: AbortSignal): Promise<void> {
    return abortable(this.#answered.promise, signal)
  }

  get size(): number | undefined {
    return this.#knownSize
  }

  /** The blob's length. Where nobody knows it yet the transfer starts that tells it. `signal` ends this wait only. */
  async sized(signal: AbortSignal): Promise<number> {
    const visitor = this.#join([])
    try {
      return await abortable(this.#size.promise, signal)
    } finally {
      this.#leave(visitor)
    }
  }

  /** Bytes it will still write, as far as known. */
  get missingBytes(): number {
    return this.isSettled ? 0 : Math.max(0, (this.#knownSize ?? 0) - this.#incoming.held.bytes)
  }

  get isSettled(): boolean {
    return this.#state === 'committed' || this.#state === 'failed'
  }

  /** Opens a reader of `spans`, which lie within the size. Close it exactly once. */
  reader(spans: readonly Interval[]): ByteSource {
    const size = this.#knownSize
    if (size === undefined) throw new Error('a fill is read after its size is known')
    const reader = this.#join(spans)
    return {
      size,
      read: (target, position) => this.#read(reader, target, position),
      close: () => this.#close(reader),
    }
  }

  /** Keeps the fill going to its end without reading. Resolves when it is committed; `signal` ends the interest. */
  async complete(signal: AbortSignal): Promise<void> {
    const size = await this.sized(signal)
    const reader = this.#join([{ from: 0, to: size }])
    try {
      await abortable(this.done, signal)
    } finally {
      this.#leave(reader)
    }
  }

  /** Ends the fill and keeps what is here for the next one. Its readers fail. */
  async stop(reason: GatewayError): Promise<void> {
    if (this.#state === 'filling') await this.#stop(reason)
    else await this.done.catch(() => undefined)
  }

  #join(spans: readonly Interval[]): Reader {
    clearTimeout(this.#graceTimer)
    const reader: Reader = { spans, waitingAt: undefined, wake: () => undefined, isClosed: false }
    this.#readers.add(reader)
    // The tail is given out only with the right digest, and that takes the whole.
    this.#wholeWanted ||= spans.some((span) => span.to === this.#knownSize)
    this.#pump()
    return reader
  }

  async #read(reader: Reader, target: Uint8Array, position: number): Promise<number> {
    const size = this.#knownSize ?? 0
    const span = reader.spans.find(({ from, to }) => from <= position && position < to)
    if (span === undefined) throw new Error(`byte ${position} is outside the spans of this reader`)
    const tail = span.to === size ? Math.max(0, size - HOLD_BACK_BYTES) : size
    for (;;) {
      if (this.#error !== undefined) throw this.#error
      if (reader.isClosed) throw new GatewayError('OVERLOADED', `${this.digest}: its reader was closed`)
      const end = this.#state === 'committed' ? span.to : Math.min(span.to, tail)
      const length = Math.min(this.#incoming.held.heldFrom(position), end - position, target.length)
      if (length > 0) return this.#incoming.read(target.subarray(0, length), position)
      await this.#waitFor(reader, position)
    }
  }

  async #waitFor(reader: Reader, position: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    reader.waitingAt = position
    reader.wake = resolve
    if (!isArriving([...this.#transfers], position, this.#options.policy.nearBytes)) this.#pump()
    await promise
    reader.waitingAt = undefined
  }

  /** Wakes every reader whose byte is here, or all when something was decided. */
  #wake(everyone: boolean): void {
    for (const reader of this.#readers) {
      if (reader.waitingAt === undefined) continue
      if (everyone || this.#incoming.held.heldFrom(reader.waitingAt) > 0) reader.wake()
    }
  }

  /** A read that waits is given up: whoever closes has nobody left to read for. */
  #close(reader: Reader): Promise<void> {
    reader.isClosed = true
    reader.wake()
    this.#leave(reader)
    return Promise.resolve()
  }

  #leave(reader: Reader): void {
    if (!this.#readers.delete(reader) || this.#readers.size > 0) return
    if (this.#state === 'committed') this.#closeFile()
    else if (this.#state === 'filling') this.#awaitReaders()
  }

  #awaitReaders(): void {
    const { graceMs } = this.#options
    // With nothing here and nothing coming there is nothing to come back for.
    const isIdle = this.#transfers.size === 0 && this.#incoming.held.bytes === 0
    const waitMs = isIdle ? Math.min(graceMs, IDLE_GRACE_MS) : graceMs
    this.#graceTimer = setTimeout(() => this.#onUnread(), waitMs).unref()
  }

  #onUnread(): void {
    if (this.#readers.size > 0 || this.#state !== 'filling') return
    const size = this.#knownSize ?? Infinity
    const held = this.#incoming.held.bytes
    if (this.#wholeWanted && (held >= size / 2 || size - held <= FINISH_BELOW_BYTES)) return this.#pump()
    this.#isAbandoned = true
    void this.#stop(new GatewayError('UPSTREAM_UNREACHABLE', `${this.digest}: every reader left`))
  }

  #learnSize(size: number): void {
    this.#knownSize = size
    this.#size.resolve(size)
    for (const transfer of this.#transfers) if (transfer.to === Infinity) transfer.to = size
  }

  /** Starts what should run now; called whenever something changed that the schedule depends on. */
  #pump(): void {
    const size = this.#knownSize
    const { held } = this.#incoming
    if (this.#state !== 'filling') return
    if (size !== undefined && held.contains(0, size)) {
      void this.#verify(size)
      return
    }
    if (this.#resumption.isWaiting || this.#options.source === undefined) return
    if (size === undefined) {
      // The transfer that tells the length goes on where an earlier one was cut.
      if (this.#transfers.size === 0) this.#launch({ from: held.heldFrom(0), to: Infinity })
      return
    }
    const wants = this.#wholeWanted ? [...this.#readers, wholeOf(size)] : [...this.#readers]
    for (;;) {
      const claims = [...this.#transfers]
      const { policy } = this.#options
      const part = planTransfer({ size, held, claims, wants, policy, isSingle: this.#resumption.isSingle })
      if (part === undefined) return
      const shortened = claims.find((claim) => claim === part.shortens)
      if (shortened !== undefined) shortened.to = part.from
      this.#launch(part)
    }
  }

  #launch(part: Part): void {
    const transfer = new Transfer(part, this)
    this.#transfers.add(transfer)
    void this.#run(transfer).then(
      () => this.#onTransferred(transfer),
      (error: unknown) => this.#onTransferFailed(transfer, error),
    )
  }

  async #run(transfer: Transfer): Promise<void> {
    const { source, reserve, hedgeAfterMs = HEDGE_AFTER_MS } = this.#options
    if (source === undefined) return
    const signal = AbortSignal.any([this.#stopped.signal, transfer.abort.signal])
    const size = this.#knownSize
    // The whole is asked for without a Range, so that the plainest registry serves the common case.
    const to = size === undefined || (transfer.position === 0 && transfer.to === size) ? undefined : transfer.to
    const range = { from: transfer.position, to }
    const stream = await openHedged((ends) => source.open(range, ends), { afterMs: hedgeAfterMs, signal })
    this.#answered.resolve()
    try {
      if (this.#knownSize === undefined && stream.size !== undefined) await reserve(stream.size)
      this.#checkAnnounced(transfer, stream)
      await transfer.take(stream.body)
    } finally {
      stream.cancel()
    }
    if (!this.isOpen) return
    if (transfer.to === Infinity) this.#learnSize(transfer.position)
    if (transfer.position < transfer.to) {
      // Nothing announced a length, so only the size we know tells that this was no end: a cut, to be resumed.
      const text = `the body ended at byte ${transfer.position} of ${transfer.to}`
      throw new GatewayError('UPSTREAM_UNREACHABLE', `${this.digest}: ${text}`)
    }
  }

  /** Whether it still takes bytes. */
  get isOpen(): boolean {
    return this.#state === 'filling'
  }

  /** Takes what a transfer brings: into the file unless it is there, on to the hash, and to who waits for it. */
  async write(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    const { held } = this.#incoming
    if (!held.contains(offset, offset + lengthOf(chunks))) {
      await this.#incoming.write(chunks, offset)
      this.#incoming.advance(held.heldFrom(0))
      this.#resumption.progressed()
    }
    this.#wake(false)
  }

  #checkAnnounced(transfer: Transfer, stream: BlobStream): void {
    if (stream.size !== undefined) {
      if (this.#knownSize === undefined) this.#learnSize(stream.size)
      else if (this.#knownSize !== stream.size) {
        throw invalid(`${this.digest}: ${this.#knownSize} bytes expected, the upstream announces ${stream.size}`)
      }
    }
    if (stream.from !== transfer.position) {
      // 200 to a range: take the whole from the front, on this one connection.
      this.#resumption.useOneConnection()
      for (const other of this.#transfers) if (other !== transfer) other.abort.abort()
      transfer.restart({ from: stream.from, to: this.#knownSize ?? Infinity })
    }
  }

  #onTransferred(transfer: Transfer): void {
    this.#transfers.delete(transfer)
    this.#wake(false)
    this.#pump()
  }

  async #onTransferFailed(transfer: Transfer, cause: unknown): Promise<void> {
    this.#transfers.delete(transfer)
    if (this.#state !== 'filling') return
    if (transfer.abort.signal.aborted) return this.#pump()
    const error = cause instanceof GatewayError ? cause : invalid(`${this.digest}: ${String(cause)}`, cause)
    const isLarge = (this.#knownSize ?? 0) >= this.#options.policy.parallelFromBytes
    const hasOthers = this.#transfers.size > 0
    const isAdmitted = this.#resumption.admits(error, {
      hasBegun: hasOthers || this.#incoming.held.bytes > 0,
      isParallel: hasOthers || isLarge,
    })
    if (!isAdmitted) return this.#fail(error, KEEPS_NOTHING.has(error.code) ? 'drop' : 'keep')
    this.#options.onEvent({ kind: 'resumed', position: transfer.position, reason: error.message })
    await this.#resumption.pause(error, this.#stopped.signal)
    this.#pump()
  }

  async #verify(size: number): Promise<void> {
    this.#state = 'verifying'
    try {
      const actual = await this.#incoming.computeDigest(size)
      if (actual !== this.digest) return await this.#reject(size, actual)
      const { stamp, durable } = await this.#incoming.commit(size)
      await this.#options.onVerified(stamp, durable)
    } catch (cause) {
      const error = storeFailure(cause)
      return this.#fail(error, KEEPS_NOTHING.has(error.code) ? 'drop' : 'keep')
    }
    this.#state = 'committed'
    this.#options.onEvent({ kind: 'committed', bytes: size, ms: performance.now() - this.#startedAt })
    this.#done.resolve()
    this.#wake(true)
    if (this.#readers.size === 0) this.#closeFile()
  }

  async #reject(size: number, actual: Digest): Promise<void> {
    if (!this.isLocal) {
      this.#options.source?.blame?.()
      return this.#fail(invalid(`${this.digest}: the ${size} bytes that came hash to ${actual}`), 'drop')
    }
    const reason = `the ${size} bytes that were here hash to ${actual}`
    this.#options.onEvent({ kind: 'quarantined', reason })
    await this.#fail(new GatewayError('STORE_FAILED', `${this.digest}: ${reason}`), 'drop')
  }

  async #stop(reason: GatewayError): Promise<void> {
    const heldBytes = this.#incoming.held.bytes
    await this.#end(reason, 'keep', { kind: 'stopped', heldBytes })
  }

  #fail(error: GatewayError, end: 'keep' | 'drop'): Promise<void> {
    return this.#end(error, end, { kind: 'failed', error })
  }

  async #end(error: GatewayError, end: 'keep' | 'drop', event: FillEvent): Promise<void> {
    if (this.isSettled) return
    this.#state = 'failed'
    this.#error = error
    clearTimeout(this.#graceTimer)
    this.#stopped.abort(error)
    this.#answered.resolve()
    try {
      await (end === 'drop' || this.#incoming.held.bytes === 0 ? this.#incoming.drop() : this.#incoming.keep())
      this.#options.onEvent(event)
    } catch (cause) {
      this.#options.onEvent({ kind: 'failed', error: storeFailure(cause) })
    }
    this.#size.reject(error)
    this.#done.reject(error)
    this.#wake(true)
  }

  /** Nobody waits for it: the file is let go once its bytes are synced. */
  #closeFile(): void {
    if (!this.#isFileOpen) return
    this.#isFileOpen = false
    this.#incoming.close().catch(() => undefined) // every byte was read already
  }
}

function wholeOf(size: number): Want {
  return { spans: [{ from: 0, to: size }], waitingAt: undefined }
}

function storeFailure(cause: unknown): GatewayError {
  return cause instanceof GatewayError ? cause : new GatewayError('STORE_FAILED', String(cause), { cause })
}

function invalid(message: string, cause?: unknown): GatewayError {
  return new GatewayError('UPSTREAM_INVALID', message, { cause })
}
