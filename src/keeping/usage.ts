/** How many bytes a namespace holds: counted as they come and go, and counted anew by every walk over its blobs. */
import type { Digest } from '../oci/digest.ts'

/** What a file of `size` bytes takes, on a file system with the usual blocks; a walk finds what it really took. */
export function expectedDiskBytes(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES
}

const BLOCK_BYTES = 4096

/**
 * A walk sees blobs in lexical order, while others come and go. Where it cannot be known whether the walk saw one, it is
 * counted: too much evicts a little early, too little would exceed a quota.
 */
export class UsageCount {
  #bytes = 0
  #leftovers = 0
  #listener: () => void = () => undefined
  #walk: { bytes: number; at: string } | undefined

  /** Bytes held, interrupted bodies included. */
  get bytes(): number {
    return this.#bytes + this.#leftovers
  }

  /** What is known before the first walk. */
  estimate(bytes: number): void {
    if (this.#walk === undefined) this.#bytes = Math.max(this.#bytes, bytes)
  }

  /** Interrupted and quarantined bytes, measured. */
  setLeftovers(bytes: number): void {
    this.#leftovers = bytes
  }

  /** `listener` runs whenever bytes came. */
  watch(listener: () => void): void {
    this.#listener = listener
  }

  add(digest: Digest, bytes: number): void {
    this.#bytes += bytes
    this.#listener()
    if (this.#walk !== undefined && folderOf(digest) <= folderOf(this.#walk.at)) this.#walk.bytes += bytes
  }

  /**
   * Call before a blob is removed, and what it gives with the bytes that were freed. Which side of the walk it lies on is
   * decided now: the walk may pass where it was before its removal is told.
   */
  startRemoval(digest: Digest): (bytes: number) => void {
    const walk = this.#walk !== undefined && digest <= this.#walk.at ? this.#walk : undefined
    return (bytes) => {
      this.#bytes = Math.max(0, this.#bytes - bytes)
      if (walk !== undefined) walk.bytes = Math.max(0, walk.bytes - bytes)
    }
  }

  startWalk(): void {
    this.#walk = { bytes: 0, at: '' }
  }

  /** The walk found a blob. */
  walked(digest: Digest, bytes: number): void {
    if (this.#walk === undefined) return
    this.#walk.bytes += bytes
    this.#walk.at = digest
  }

  /** The walk is over; `isWhole`: it came to the end. */
  endWalk(isWhole: boolean): void {
    if (isWhole && this.#walk !== undefined) this.#bytes = this.#walk.bytes
    this.#walk = undefined
  }
}

/** `sha256:ab`: a walk reads the names of such a folder at once. */
function folderOf(digest: string): string {
  return digest.slice(0, digest.indexOf(':') + 3)
}
