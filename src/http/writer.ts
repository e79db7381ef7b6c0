/**
 * Puts a `Reply` on the socket. The only hot loop, and the only code that writes to a response. It knows nothing of
 * registries: bytes come from memory or from a `ByteSource`, at the pace of the client, through at most two buffers.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { GatewayError } from '../errors.ts'
import { BufferPool, type BufferPoolOptions } from './buffer-pool.ts'
import type { Reply, SourceBody } from './reply.ts'

export interface WriteResult {
  /** Body bytes the kernel took. */
  readonly bytes: number
  /** The client went, or was closed for taking too little, before it had everything. */
  readonly aborted: boolean
  /** We closed the connection because the client did not take what was there for it. */
  readonly slow: boolean
  /** Why the source failed after the headers were out. The client sees a reset connection. */
  readonly error: unknown
}

export interface ReplyWriterOptions extends BufferPoolOptions {
  /** A client that takes nothing at all for so long is closed. Default 60 s. */
  readonly stallMs?: number
  /** On top of `stallMs`, a client has the time this rate allows for each chunk. Default 1,024. */
  readonly minBytesPerSecond?: number
}

/** A chunk that takes longer than this to leave makes the next ones small. */
const SLOW_CHUNK_MS = 1000

export class ReplyWriter {
  readonly #pool: BufferPool
  readonly #stallMs: number
  readonly #minBytesPerSecond: number

  constructor(options: ReplyWriterOptions = {}) {
    this.#pool = new BufferPool(options)
    this.#stallMs = options.stallMs ?? 60_000
    this.#minBytesPerSecond = options.minBytesPerSecond ?? 1024
  }

  /** Bytes held in read buffers, for metrics. */
  get bufferBytes(): number {
    return this.#pool.bytes
  }

  /**
   * Sends the reply and resolves when the kernel has all of it or the client is gone. A source is closed exactly once in
   * every case. Rejects only while nothing was sent, so that the caller can still answer with an error: when the first
   * read fails, or with OVERLOADED when no buffer is left.
   */
  async write(reply: Reply, incoming: IncomingMessage, outgoing: ServerResponse): Promise<WriteResult> {
    const { body } = reply
    const exchange = new Exchange(outgoing, { stallMs: this.#stallMs, minBytesPerSecond: this.#minBytesPerSecond })
    try {
      if (body === undefined || body instanceof Uint8Array) {
        const bytes = incoming.method === 'HEAD' ? undefined : body
        outgoing.writeHead(reply.status, reply.headers)
        return await exchange.end(bytes)
      }
      if (incoming.method === 'HEAD') {
        await quietly(body.source.close())
        outgoing.writeHead(reply.status, reply.headers)
        return await exchange.end()
      }
      return await this.#writeSource(reply, body, exchange)
    } finally {
      exchange.release()
    }
  }

  async #writeSource(reply: Reply, { source, segments }: SourceBody, exchange: Exchange): Promise<WriteResult> {
    const closeSource = once(() => quietly(source.close()))
    // The reader that waits for bytes still on their way is freed at once when its client goes.
    exchange.onGone(() => void closeSource())
    const chunks = this.#chunks({ source, segments }, exchange)
    let unsent: Chunk | undefined
    try {
      if (exchange.gone) return await exchange.end()
      if (this.#pool.exhausted) throw new GatewayError('OVERLOADED', 'writing a body: all read buffers are in use')
      // The first read comes before the headers: what fails here can still be said properly.
      unsent = (await chunks.next()).value
      exchange.outgoing.writeHead(reply.status, reply.headers)
      // Two chunks are under way at most: while one drains the next is read, and it waits for the one before the last.
      let draining = Promise.resolve()
      while (unsent !== undefined && !exchange.gone) {
        const sent = exchange.send(unsent)
        unsent = undefined
        await draining
        draining = sent
        // A closed source must not be read again: its file descriptor may be another file's by now.
        unsent = exchange.gone ? undefined : (await chunks.next()).value
      }
      await draining
      return await exchange.end()
    } catch (error) {
      if (!exchange.outgoing.headersSent && !exchange.gone) throw error
      return exchange.fail(error)
    } finally {
      unsent?.release()
      await closeSource()
    }
  }

  /** The body in pieces. The first piece is yielded only when the first read of the source has succeeded. */
  async *#chunks({ source, segments }: SourceBody, exchange: Exchange): AsyncGenerator<Chunk, undefined> {
    const texts: Uint8Array[] = []
    for (const segment of segments) {
      if (segment instanceof Uint8Array) {
        texts.push(segment)
        continue
      }
      for (let at = segment.from; at < segment.to;) {
        const left = segment.to - at
        const buffer = await this.#pool.lend(exchange.isSlow ? 'small' : this.#pool.sizeFor(left))
        const release = once(() => this.#pool.giveBack(buffer))
        let count: number
        try {
          if (exchange.gone) throw new GatewayError('OVERLOADED', 'the client left while it waited for a buffer')
          count = await source.read(left < buffer.length ? buffer.subarray(0, left) : buffer, at)
          if (count <= 0) throw new GatewayError('STORE_FAILED', `reading at ${at} of ${source.size}: no bytes came`)
        } catch (error) {
          release()
          throw error
        }
        for (const bytes of texts.splice(0)) yield { bytes, release: () => undefined }
        yield { bytes: buffer.subarray(0, count), release }
        at += count
      }
    }
    for (const bytes of texts) yield { bytes, release: () => undefined }
    return undefined
  }
}

interface Chunk {
  readonly bytes: Uint8Array
  /** Must be called once the bytes are out of our hands. */
  readonly release: () => void
}

interface ExchangeLimits {
  readonly stallMs: number
  readonly minBytesPerSecond: number
}

/** One response on its way: what left, what is leaving, and whether the client is still there. */
class Exchange {
  readonly outgoing: ServerResponse
  readonly #limits: ExchangeLimits
  readonly #pending = new Set<() => void>()
  readonly #onGone: (() => void)[] = []
  #bytes = 0
  #finished = false
  #slow = false
  #isSlow = false

  constructor(outgoing: ServerResponse, limits: ExchangeLimits) {
    this.outgoing = outgoing
    this.#limits = limits
    outgoing.on('close', this.#closed)
    // Fires when no byte left the socket for so long; while nothing is waiting to leave, the client is not to blame.
    outgoing.setTimeout(limits.stallMs, this.#stalled)
  }

  /** Whether the connection went before the end. */
  get gone(): boolean {
    return this.outgoing.destroyed && !this.#finished
  }

  /** Whether the last chunk took long to leave. */
  get isSlow(): boolean {
    return this.#isSlow
  }

  onGone(call: () => void): void {
    if (this.gone) call()
    else this.#onGone.push(call)
  }

  /** Writes bytes; resolves when the kernel has them or the client is gone; the chunk is released then. */
  send({ bytes, release }: Chunk): Promise<void> {
    return new Promise((resolve) => {
      const startedAt = performance.now()
      const settle = once((sent: boolean) => {
        clearTimeout(deadline)
        this.#pending.delete(drop)
        if (sent) this.#bytes += bytes.length
        this.#isSlow = performance.now() - startedAt > SLOW_CHUNK_MS
        release()
        resolve()
      })
      const drop = (): void => settle(false)
      const deadline = setTimeout(this.#tooSlow, this.#allowedMs(bytes.length))
      this.#pending.add(drop)
      if (this.gone) drop()
      else this.outgoing.write(bytes, (error) => settle(error === undefined || error === null))
    })
  }

  /** Ends the response, with a last piece where there is one. */
  async end(bytes?: Uint8Array): Promise<WriteResult> {
    if (!this.gone) {
      await new Promise<void>((resolve) => {
        const deadline = setTimeout(this.#tooSlow, this.#allowedMs(bytes?.length ?? 0))
        const settle = (): void => {
          clearTimeout(deadline)
          this.#pending.delete(settle)
          resolve()
        }
        this.#pending.add(settle)
        this.outgoing.once('finish', () => {
          this.#finished = true
          this.#bytes += bytes?.length ?? 0
          settle()
        })
        if (bytes === undefined) this.outgoing.end()
        else this.outgoing.end(bytes)
      })
    }
    return this.#result(undefined)
  }

  /** After headers are out there is one way to say that something is wrong: no clean end. */
  fail(error: unknown): WriteResult {
    const clientWent = this.gone
    this.outgoing.destroy()
    // Nothing of what is still under way leaves any more; `close` may come only after we have stopped listening for it.
    this.#closed()
    return this.#result(clientWent ? undefined : error)
  }

  /** Stops watching; the connection may go on to its next request. */
  release(): void {
    this.outgoing.off('close', this.#closed)
    this.outgoing.off('timeout', this.#stalled)
  }

  #result(error: unknown): WriteResult {
    return { bytes: this.#bytes, aborted: !this.#finished && error === undefined, slow: this.#slow, error }
  }

  #allowedMs(bytes: number): number {
    return this.#limits.stallMs + (bytes / this.#limits.minBytesPerSecond) * 1000
  }

  readonly #stalled = (): void => {
    if (this.#pending.size > 0) this.#tooSlow()
  }

  readonly #tooSlow = (): void => {
    this.#slow = true
    this.outgoing.destroy()
  }

  readonly #closed = (): void => {
    for (const settle of this.#pending) settle()
    for (const call of this.#onGone.splice(0)) call()
  }
}

/** The first call runs; later ones give its result. */
function once<A extends unknown[], R>(call: (...args: A) => R): (...args: A) => R {
  let result: { readonly value: R } | undefined
  return (...args) => (result ??= { value: call(...args) }).value
}

/** Closing after the fact: whether it works changes nothing for the client. */
async function quietly(work: Promise<void>): Promise<void> {
  await work.catch(() => undefined)
}
