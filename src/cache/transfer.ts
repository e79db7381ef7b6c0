/**
 * One connection's part of a fill: bytes `[position, to)` of the blob, from the upstream into the file. Reads on while
 * the disk works and hands over what has come in one call; knows neither readers nor schedule.
 */
import type { Interval } from '../async/intervals.ts'
import { GatewayError } from '../errors.ts'
import type { Claim } from './schedule.ts'

/** Bytes that may wait for the disk: enough to write them in few calls. */
const WRITE_AHEAD_BYTES = 1024 * 1024

export interface TransferSink {
  /** Puts the chunks, one after another, at `offset`. */
  write(chunks: readonly Uint8Array[], offset: number): Promise<void>
  /** False once nothing more is wanted. */
  readonly isOpen: boolean
  /** Length of the whole, once known: a byte beyond it is a lie. */
  readonly size: number | undefined
}

export class Transfer implements Claim {
  /** First byte that is not in the file yet. */
  position: number
  /** First byte after the part; Infinity while nobody knows the length. Others may bring it forward. */
  to: number
  readonly abort = new AbortController()
  readonly #sink: TransferSink
  /** First byte that has not come yet. */
  #arrived: number
  readonly #unwritten: Uint8Array[] = []
  /** Ends when nothing is left to write; never rejects: see `#failure`. */
  #writing: Promise<void> | undefined
  #failure: Error | undefined

  constructor(part: Interval, sink: TransferSink) {
    this.position = part.from
    this.#arrived = part.from
    this.to = part.to
    this.#sink = sink
  }

  /** Goes on from another place: the upstream sends the whole instead of a part. */
  restart(part: Interval): void {
    this.position = part.from
    this.#arrived = part.from
    this.to = part.to
  }

  /**
   * Takes the body up to `to`, or its end. Settles only when all that came is in the file, so that a cut is resumed
   * behind it. Rejects as the body does, with the sink's failure, or with UPSTREAM_INVALID for bytes beyond the size.
   */
  async take(body: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const chunk of body) {
        this.#accept(chunk)
        if (this.#arrived - this.position >= WRITE_AHEAD_BYTES) await this.#writing
        if (this.#failure !== undefined || this.#arrived >= this.to || !this.#sink.isOpen) break
      }
    } finally {
      await this.#writing
    }
    if (this.#failure !== undefined) throw this.#failure
  }

  #accept(chunk: Uint8Array): void {
    const { size } = this.#sink
    if (size !== undefined && this.#arrived + chunk.length > size) {
      throw new GatewayError('UPSTREAM_INVALID', `more bytes than the ${size} announced`)
    }
    this.#arrived += chunk.length
    this.#unwritten.push(chunk)
    this.#writing ??= this.#writeOut()
      .catch((error: unknown) => (this.#failure = error instanceof Error ? error : new Error(String(error))))
      .then(() => (this.#writing = undefined))
  }

  async #writeOut(): Promise<void> {
    while (this.#unwritten.length > 0 && this.#sink.isOpen) {
      const chunks = within(this.#unwritten.splice(0), Math.max(0, this.to - this.position))
      await this.#sink.write(chunks, this.position)
      this.position += lengthOf(chunks)
    }
  }
}

export function lengthOf(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0)
}

/** The chunks up to `limit` bytes in all. */
function within(chunks: readonly Uint8Array[], limit: number): readonly Uint8Array[] {
  let left = limit
  return chunks.flatMap((chunk) => {
    const taken = Math.min(left, chunk.length)
    left -= taken
    return taken === 0 ? [] : [chunk.subarray(0, taken)]
  })
}
