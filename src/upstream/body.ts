/** A reply's body: read once, whole under a cap or piece by piece; leaving it early ends the connection. */
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { GatewayError } from '../errors.ts'
import type { Pace } from './pace.ts'
import { TransportError } from './transport-error.ts'

/** Bodies of errors, tokens: faults.md R70. */
export const MAX_ERROR_BYTES = 64 * 1024

const gunzipAsync = promisify(gunzip)

export interface ReplyBodyOptions {
  readonly stream: Readable
  readonly signal: AbortSignal
  /** Slows the reading down; the gaps this makes are ours and count against nobody. */
  readonly pace?: Pace | undefined
  /** Called once, when the body has ended or was given up. */
  readonly onClose: (bytes: number) => void
}

export class ReplyBody implements AsyncIterable<Uint8Array> {
  readonly #stream: Readable
  readonly #signal: AbortSignal
  readonly #pace: Pace | undefined
  #bytes = 0

  constructor({ stream, signal, pace, onClose }: ReplyBodyOptions) {
    this.#stream = stream
    this.#signal = signal
    this.#pace = pace
    stream.once('close', () => onClose(this.#bytes))
    // Whoever reads learns of a failure by reading; one that comes while nobody does must not end the process.
    stream.on('error', () => undefined)
  }

  /** Rejects with a `TransportError`, or with the signal's reason when that ended it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of this.#stream as AsyncIterable<Buffer>) {
        this.#bytes += chunk.length
        if (this.#pace !== undefined) await this.#pace.take(chunk.length, this.#signal)
        yield chunk
      }
    } catch (error) {
      if (this.#signal.aborted) throw this.#signal.reason
      throw TransportError.from(error)
    }
  }

  /**
   * The whole body, at most one gzip layer decoded (`encoding` is the Content-Encoding), never more than `maxBytes`
   * before or after that. Over the cap, or another encoding: UPSTREAM_INVALID. Rule: faults.md R70, R71.
   */
  async readCapped(maxBytes: number, encoding: string | undefined, subject: string): Promise<Buffer> {
    const chunks: Uint8Array[] = []
    let length = 0
    for await (const chunk of this) {
      length += chunk.length
      if (length > maxBytes)
        throw new GatewayError('UPSTREAM_INVALID', `${subject}: the body is longer than ${maxBytes} bytes`)
      chunks.push(chunk)
    }
    const raw = Buffer.concat(chunks)
    if (encoding === undefined || encoding === '' || encoding === 'identity') return raw
    if (encoding !== 'gzip' && encoding !== 'x-gzip') {
      throw new GatewayError(
        'UPSTREAM_INVALID',
        `${subject}: unexpected content encoding ${JSON.stringify(encoding.slice(0, 40))}`,
      )
    }
    try {
      return await gunzipAsync(raw, { maxOutputLength: maxBytes })
    } catch (error) {
      throw new GatewayError(
        'UPSTREAM_INVALID',
        `${subject}: the gzip body cannot be decoded within ${maxBytes} bytes`,
        { cause: error },
      )
    }
  }

  /** Reads a body nobody wants to its end, so that the connection can be used again; a long one is cut. */
  async discard(): Promise<void> {
    await this.settle()
  }

  /** The first 64 KiB, now and in memory: the connection is free again when this resolves. Never rejects. */
  async settle(): Promise<ReplyBody> {
    const chunks: Uint8Array[] = []
    let length = 0
    try {
      for await (const chunk of this) {
        length += chunk.length
        if (length > MAX_ERROR_BYTES) break
        chunks.push(chunk)
      }
    } catch {
      // The head of the reply was already understood: how its rest ends changes nothing.
    }
    const stream = Readable.from([Buffer.concat(chunks)])
    return new ReplyBody({ stream, signal: this.#signal, onClose: () => undefined })
  }

  /** Ends the transfer now; idempotent. */
  cancel(): void {
    this.#stream.destroy()
  }
}
