/** Bytes that can be read at a position: a stored blob, or one that is still on its way in. */

export interface ByteSource {
  /** Length of the whole in bytes. */
  readonly size: number
  /**
   * Reads at least one byte at `position` into `target` and says how many; waits when the bytes are not here yet.
   * Rejects when they never will be. `position` is below `size`. Calls of one reader do not overlap.
   */
  read(target: Uint8Array, position: number): Promise<number>
  /** Releases what the reader holds. Must be called exactly once, whatever happened. */
  close(): Promise<void>
}
