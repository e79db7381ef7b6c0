/**
 * Tells the next run which bytes of an incoming body are there. Two files, because two things may end this run:
 *
 * - the map, which a power failure leaves true: the bytes are synced first, then what says that they are there;
 * - a note of what is written but maybe not synced, which holds while the machine runs: a killed process leaves its
 *   bytes to the kernel. A disk may take a second for a sync; a note takes none, so a kill costs little.
 */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { Intervals } from '../../async/intervals.ts'
import type { Digest } from '../../oci/digest.ts'
import { formatIntervalMap, loadIntervalMap } from './interval-map.ts'
import { removeFile, writeSmallFile, type SmallFileWriter } from './small-file.ts'

export interface MapPlace {
  readonly digest: Digest
  readonly mapPath: string
  readonly notePath: string
  /** Of this start of the machine; undefined writes and believes no note. */
  readonly bootId: string | undefined
}

export interface MapSaverOptions extends MapPlace {
  readonly writer: SmallFileWriter
  readonly held: Intervals
  /** What the map that stands there says; 0 when none does. */
  readonly syncedBytes: number
}

/** Smaller bodies are fetched again sooner than their map is synced. */
const FROM_BYTES = 4 * 1024 * 1024
/** What a crash may cost beyond what one sync takes. */
const STEP_BYTES = 1024 * 1024
/** A sync of a fast disk takes less than this; without a pause it would never stop. */
const PAUSE_MS = 100
/** What a kill may cost beyond what came in a pause between two notes, some 0.2 ms of work each. */
const NOTE_STEP_BYTES = 256 * 1024
const NOTE_PAUSE_MS = 20

/** What an earlier run held of a body whose file is `fileSize` long; no bytes when neither map nor note is right. */
export async function loadHeld(
  place: MapPlace,
  fileSize: number,
): Promise<{ readonly held: Intervals; readonly syncedBytes: number }> {
  const { digest, mapPath, notePath, bootId } = place
  const synced = await loadIntervalMap(mapPath, digest, fileSize)
  const noted =
    bootId === undefined ? undefined : await loadIntervalMap(notePath, noteSubject(digest, bootId), fileSize)
  const held = new Intervals([...(synced?.toArray() ?? []), ...(noted?.toArray() ?? [])])
  return { held, syncedBytes: synced?.bytes ?? 0 }
}

export class MapSaver {
  readonly #options: MapSaverOptions
  readonly #map: Pacer
  readonly #note: Pacer
  #isSaved: boolean
  #noteFile: NoteFile | undefined
  #isStopped = false
  /** A sync failed: the medium may lack bytes that were held before it, and no later sync would tell. */
  #isBroken = false

  constructor(options: MapSaverOptions) {
    this.#options = options
    this.#isSaved = options.held.bytes > 0
    this.#map = new Pacer({ stepBytes: STEP_BYTES, pauseMs: PAUSE_MS }, options.syncedBytes)
    this.#note = new Pacer({ stepBytes: NOTE_STEP_BYTES, pauseMs: NOTE_PAUSE_MS }, options.held.bytes)
  }

  /** Tells that `held` grew. Saves when it is time, in the background, one save of each kind at a time. */
  onGrown(file: FileHandle): void {
    if (this.#isStopped || this.#isBroken) return
    const { held, bootId } = this.#options
    if (held.bytes < FROM_BYTES) return
    const next = (): void => this.onGrown(file)
    this.#map.onGrown(held.bytes, () => this.#saveMap(file), next)
    if (bootId !== undefined) this.#note.onGrown(held.bytes, () => this.#saveNote(bootId), next)
  }

  /** Saves what is held now, synced. Rejects when that fails, or a sync failed before. */
  async save(file: FileHandle): Promise<void> {
    await this.stop()
    if (this.#isBroken) throw new Error('an earlier sync of this file failed')
    await this.#saveMap(file)
  }

  /** Starts no further save and waits for those under way. */
  async stop(): Promise<void> {
    this.#isStopped = true
    await Promise.all([this.#map.stop(), this.#note.stop()])
    await this.#noteFile?.close()
    this.#noteFile = undefined
  }

  /** Removes map and note, if there are any. Stop first. */
  async remove(): Promise<void> {
    if (!this.#isSaved) return
    await removeFile(this.#options.mapPath)
    await removeFile(this.#options.notePath)
  }

  async #saveMap(file: FileHandle): Promise<void> {
    const { writer, mapPath, notePath, digest, held } = this.#options
    // Taken before the sync: what is written during it may be missing on the medium.
    const snapshot = held.toArray()
    await writer.disk.sync(file).catch(async (error: unknown) => {
      this.#isBroken = true
      await this.#note.stop()
      await removeFile(notePath).catch(() => undefined)
      throw error
    })
    const content = formatIntervalMap(digest, snapshot)
    if (content === undefined) return
    this.#isSaved = true
    await writeSmallFile(writer, mapPath, content)
  }

  async #saveNote(bootId: string): Promise<void> {
    const { notePath, digest, held } = this.#options
    const content = formatIntervalMap(noteSubject(digest, bootId), held.toArray())
    if (content === undefined) return
    this.#isSaved = true
    this.#noteFile ??= await NoteFile.open(notePath)
    await this.#noteFile.write(content)
  }
}

/**
 * A file written over in place, again and again. A rename would wait for the syncs that the note is there to outrun: the
 * file system's journal takes no new names while it commits. Torn by a kill it is refused by its check, and the map stays.
 */
class NoteFile {
  readonly #file: FileHandle
  #length: number

  private constructor(file: FileHandle, length: number) {
    this.#file = file
    this.#length = length
  }

  static async open(path: string): Promise<NoteFile> {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
    const file = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o644)
    return new NoteFile(file, (await file.stat()).size)
  }

  async write(content: Buffer): Promise<void> {
    // A shorter text than the last is followed by blanks, which mean nothing in JSON.
    this.#length = Math.max(this.#length, content.byteLength)
    const padded = Buffer.alloc(this.#length, ' ')
    content.copy(padded)
    await this.#file.write(padded, 0, padded.byteLength, 0)
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => undefined)
  }
}

/** One save at a time, not before there is enough to save, with a pause after each. */
class Pacer {
  readonly #pace: { readonly stepBytes: number; readonly pauseMs: number }
  #savedBytes: number
  #saving: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #savedAt = -Infinity

  constructor(pace: { readonly stepBytes: number; readonly pauseMs: number }, savedBytes: number) {
    this.#pace = pace
    this.#savedBytes = savedBytes
  }

  /** Runs `save` if `bytes` are enough more than at the last one, now or after the pause. `next` runs after both. */
  onGrown(bytes: number, save: () => Promise<void>, next: () => void): void {
    if (this.#saving !== undefined || this.#timer !== undefined) return
    if (bytes - this.#savedBytes < this.#pace.stepBytes) return
    const waitMs = this.#savedAt + this.#pace.pauseMs - performance.now()
    if (waitMs > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        next()
      }, waitMs).unref()
      return
    }
    this.#saving = save()
      .then(() => {
        this.#savedBytes = bytes
      })
      .catch(() => undefined) // what finds no room is tried again when more is held
      .then(() => {
        this.#saving = undefined
        this.#savedAt = performance.now()
        next()
      })
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#saving
  }
}

/** What a note is of: the same file after a restart of the machine may lack what was never synced. */
function noteSubject(digest: Digest, bootId: string): string {
  return `${digest} since boot ${bootId}`
}
