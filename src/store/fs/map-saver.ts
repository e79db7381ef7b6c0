/** Saves the interval map of one incoming body while it grows: its bytes first, then what says that they are there. */
import type { FileHandle } from 'node:fs/promises'
import type { Intervals } from '../../async/intervals.ts'
import type { Digest } from '../../oci/digest.ts'
import { formatIntervalMap } from './interval-map.ts'
import { writeSmallFile, type SmallFileWriter } from './small-file.ts'

export interface MapSaverOptions {
  readonly writer: SmallFileWriter
  readonly path: string
  readonly digest: Digest
  readonly held: Intervals
}

/** Smaller bodies are fetched again sooner than their map is synced. */
const FROM_BYTES = 4 * 1024 * 1024
/** What a crash may cost beyond what one sync takes. */
const STEP_BYTES = 1024 * 1024
/** A sync of a fast disk takes less than this; without a pause it would never stop. */
const PAUSE_MS = 100

export class MapSaver {
  readonly #options: MapSaverOptions
  #savedBytes: number
  #isSaved: boolean
  #saving: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #savedAt = -Infinity
  #isStopped = false
  /** A sync failed: the medium may lack bytes that were held before it, and no later sync would tell. */
  #isBroken = false

  /** `isSaved`: a map that says what `held` says stands there already. */
  constructor(options: MapSaverOptions, isSaved: boolean) {
    this.#options = options
    this.#savedBytes = isSaved ? options.held.bytes : 0
    this.#isSaved = isSaved
  }

  /** Whether a map stands on the disk. */
  get isSaved(): boolean {
    return this.#isSaved
  }

  /** Tells that `held` grew. Saves when it is time, in the background, one save at a time. */
  onGrown(file: FileHandle): void {
    if (this.#isStopped || this.#isBroken || this.#saving !== undefined || this.#timer !== undefined) return
    const { bytes } = this.#options.held
    if (bytes < FROM_BYTES || bytes - this.#savedBytes < STEP_BYTES) return
    const waitMs = this.#savedAt + PAUSE_MS - performance.now()
    if (waitMs <= 0) return this.#saveInBackground(file)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#saveInBackground(file)
    }, waitMs).unref()
  }

  /** Saves what is held now. Rejects when that fails, or a sync failed before. */
  async save(file: FileHandle): Promise<void> {
    await this.stop()
    if (this.#isBroken) throw new Error('an earlier sync of this file failed')
    await this.#save(file)
  }

  /** Starts no further save and waits for the one under way. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    await this.#saving
  }

  #saveInBackground(file: FileHandle): void {
    this.#saving = this.#save(file)
      .catch(() => undefined) // a map that finds no room is tried again when more is held
      .then(() => {
        this.#saving = undefined
        this.#savedAt = performance.now()
        this.onGrown(file)
      })
  }

  async #save(file: FileHandle): Promise<void> {
    const { writer, path, digest, held } = this.#options
    // Taken before the sync: what is written during it may be missing on the medium.
    const snapshot = held.toArray()
    const { bytes } = held
    await writer.disk.sync(file).catch((error: unknown) => {
      this.#isBroken = true
      throw error
    })
    const content = formatIntervalMap(digest, snapshot)
    if (content !== undefined) {
      this.#isSaved = true
      await writeSmallFile(writer, path, content)
    }
    this.#savedBytes = bytes
  }
}
