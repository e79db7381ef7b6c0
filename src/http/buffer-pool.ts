/** Read buffers that are used again, and a bound on all of them together: a slow client must not cost memory. */

export interface BufferPoolOptions {
  /** Bytes of one large buffer. 512 KiB is where the cost of a byte stops falling. Default 512 KiB. */
  readonly largeBytes?: number
  /** Bytes of one small buffer: for small bodies, slow clients and times of need. Default 64 KiB. */
  readonly smallBytes?: number
  /** Bytes of all buffers lent and kept. Large ones may use half of it. Default 256 MiB. */
  readonly totalBytes?: number
}

export type BufferSize = 'large' | 'small'

export class BufferPool {
  readonly #sizes: Readonly<Record<BufferSize, number>>
  readonly #totalBytes: number
  readonly #free: Readonly<Record<BufferSize, Buffer[]>> = { large: [], small: [] }
  readonly #allocated: Record<BufferSize, number> = { large: 0, small: 0 }
  readonly #waiting: ((buffer: Buffer) => void)[] = []

  constructor({
    largeBytes = 512 * 1024,
    smallBytes = 64 * 1024,
    totalBytes = 256 * 1024 * 1024,
  }: BufferPoolOptions = {}) {
    this.#sizes = { large: largeBytes, small: smallBytes }
    this.#totalBytes = Math.max(totalBytes, smallBytes)
  }

  /** The size that suits a body of so many bytes. */
  sizeFor(bytes: number): BufferSize {
    return bytes <= this.#sizes.small ? 'small' : 'large'
  }

  /** Whether a borrower would have to wait. */
  get exhausted(): boolean {
    return this.#free.small.length === 0 && this.#free.large.length === 0 && !this.#fits('small')
  }

  /** Lends a buffer of the size, or of the other one; when all are out, waits for the next that comes back. */
  lend(size: BufferSize): Buffer | Promise<Buffer> {
    const lent = this.#take(size) ?? this.#take('small') ?? this.#free.large.pop()
    return lent ?? new Promise<Buffer>((resolve) => this.#waiting.push(resolve))
  }

  /** Takes a buffer back. Nobody may read or write it any more. */
  giveBack(buffer: Buffer): void {
    const next = this.#waiting.shift()
    if (next !== undefined) next(buffer)
    else this.#free[buffer.length === this.#sizes.large ? 'large' : 'small'].push(buffer)
  }

  /** Bytes of all buffers there are. */
  get bytes(): number {
    return this.#allocated.large + this.#allocated.small
  }

  #take(size: BufferSize): Buffer | undefined {
    const free = this.#free[size].pop()
    if (free !== undefined || !this.#fits(size)) return free
    this.#allocated[size] += this.#sizes[size]
    return Buffer.allocUnsafeSlow(this.#sizes[size])
  }

  #fits(size: BufferSize): boolean {
    const next = this.#sizes[size]
    if (size === 'large' && this.#allocated.large + next > this.#totalBytes / 2) return false
    return this.bytes + next <= this.#totalBytes
  }
}
