/** Writes that wait for the next batch, bounded. What does not fit is dropped by worth: counts of use first. */
import type { Digest } from '../../oci/digest.ts'
import type { Repository } from '../../oci/repository.ts'
import type { Batch, Touch, Write } from './messages.ts'

export interface PendingWritesOptions {
  /** Above this many rows that are not applied yet, uses of further manifests are dropped; above twice it, everything. */
  readonly maxRows: number
}

export class PendingWrites {
  readonly #maxRows: number
  #writes: Write[] = []
  #touches = new Map<string, Touch>()
  #rows = 0
  /** Rows that were taken and not confirmed. */
  #posted = 0
  #lost = new Set<string>()
  #dropped = 0

  constructor({ maxRows }: PendingWritesOptions) {
    this.#maxRows = maxRows
  }

  /** Rows of the next batch. */
  get rows(): number {
    return this.#rows
  }

  /** How many rows were dropped so far. */
  get dropped(): number {
    return this.#dropped
  }

  add(write: Write): void {
    const rows = write.write === 'manifest' ? 1 + write.children.length : 1
    if (this.#rows + this.#posted + rows > 2 * this.#maxRows) {
      this.#dropped += rows
      // Without it the namespace would claim to know what it does not.
      this.#lost.add(write.namespace)
      return
    }
    this.#writes.push(write)
    this.#rows += rows
  }

  touch(namespace: string, repository: Repository, manifest: Digest, kind: 'get' | 'head', at: number): void {
    const key = `${namespace} ${repository} ${manifest}`
    let touch = this.#touches.get(key)
    if (touch === undefined) {
      if (this.#rows + this.#posted >= this.#maxRows) {
        this.#dropped++
        return
      }
      touch = { namespace, repository, manifest, gets: 0, lastGetAt: 0, lastHeadAt: 0 }
      this.#touches.set(key, touch)
      this.#rows++
    }
    if (kind === 'head') {
      touch.lastHeadAt = Math.max(touch.lastHeadAt, at)
    } else {
      touch.gets++
      touch.lastGetAt = Math.max(touch.lastGetAt, at)
    }
  }

  /** The next batch; its rows count as posted until {@link confirm}. Undefined when there is nothing to write. */
  take(): Batch | undefined {
    if (this.#rows === 0 && this.#lost.size === 0) return undefined
    const batch: Batch = {
      writes: this.#writes,
      touches: [...this.#touches.values()],
      lost: [...this.#lost],
      rows: this.#rows,
    }
    this.#posted += this.#rows
    this.#rows = 0
    this.#writes = []
    this.#touches = new Map()
    this.#lost = new Set()
    return batch
  }

  confirm(rows: number): void {
    this.#posted -= rows
  }

  /** Gives up all that was posted and not confirmed: whoever should have applied it is gone. */
  abandon(): void {
    this.#dropped += this.#posted
    this.#posted = 0
  }
}
