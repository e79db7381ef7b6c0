/**
 * A blob that is served without being stored, because there is no room for it. One upstream transfer per span and
 * reader; a whole body is hashed on the way and its tail held back like a fill's.
 */
import { createHash, type Hash } from 'node:crypto'
import type { ByteSource } from '../async/byte-source.ts'
import type { Interval } from '../async/intervals.ts'
import { GatewayError } from '../errors.ts'
import { algorithmOf, finishDigest, type Digest } from '../oci/digest.ts'
import type { BlobStream } from '../upstream/upstream.ts'
import { HOLD_BACK_BYTES, type FillSource } from './fill.ts'

export interface PassThroughOptions {
  readonly digest: Digest
  readonly size: number
  /** Read one after another, each from its start. */
  readonly spans: readonly Interval[]
  readonly source: FillSource
  /** Ends the transfer. */
  readonly signal: AbortSignal
}

export class PassThrough implements ByteSource {
  readonly size: number
  readonly #options: PassThroughOptions
  #stream: BlobStream | undefined
  #chunks: AsyncIterator<Uint8Array> | undefined
  /** Bytes that came and were not read yet: at most the held-back tail and one chunk. */
  #pending: Uint8Array = new Uint8Array(0)
  #arrived = 0
  #hash: Hash | undefined
  #isVerified = false

  constructor(options: PassThroughOptions) {
    this.#options = options
    this.size = options.size
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const span = this.#options.spans.find(({ from, to }) => from <= position && position < to)
    if (span === undefined) throw new Error(`byte ${position} is outside the spans of this reader`)
    if (this.#stream === undefined || position === span.from) await this.#openAt(span)
    for (;;) {
      const held = this.#hash === undefined || this.#isVerified ? span.to : Math.max(0, this.size - HOLD_BACK_BYTES)
      const length = Math.min(this.#pending.length, held - position, target.length)
      if (length > 0) {
        target.set(this.#pending.subarray(0, length))
        this.#pending = this.#pending.subarray(length)
        return length
      }
      await this.#pull(span)
    }
  }

  close(): Promise<void> {
    this.#stream?.cancel()
    this.#stream = undefined
    return Promise.resolve()
  }

  async #openAt(span: Interval): Promise<void> {
    const { source, digest, size, signal } = this.#options
    this.#stream?.cancel()
    const isWhole = span.from === 0 && span.to === size
    this.#stream = await source.open({ from: span.from, to: isWhole ? undefined : span.to }, signal)
    if (this.#stream.from !== span.from || (this.#stream.size ?? size) !== size) {
      throw new GatewayError(
        'UPSTREAM_INVALID',
        `${digest}: asked from byte ${span.from}, the upstream sends something else`,
      )
    }
    this.#chunks = this.#stream.body[Symbol.asyncIterator]()
    this.#pending = new Uint8Array(0)
    this.#arrived = span.from
    this.#hash = isWhole ? createHash(algorithmOf(digest)) : undefined
    this.#isVerified = false
  }

  async #pull(span: Interval): Promise<void> {
    const next = await this.#chunks?.next()
    if (next === undefined || next.done === true) return this.#finish(span)
    const chunk = next.value
    this.#hash?.update(chunk)
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    this.#arrived += chunk.length
    if (this.#arrived > span.to) throw this.#invalid(`more bytes than the ${span.to - span.from} asked`)
    if (this.#arrived === span.to) this.#finish(span)
  }

  #finish(span: Interval): void {
    if (this.#arrived < span.to) throw this.#invalid(`ended at byte ${this.#arrived} of ${span.to}`)
    if (this.#hash === undefined || this.#isVerified) return
    const actual = finishDigest(algorithmOf(this.#options.digest), this.#hash)
    if (actual !== this.#options.digest) throw this.#invalid(`the bytes that came hash to ${actual}`)
    this.#isVerified = true
  }

  #invalid(text: string): GatewayError {
    return new GatewayError('UPSTREAM_INVALID', `${this.#options.digest}: ${text}`)
  }
}
