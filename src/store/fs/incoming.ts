/** A body on its way in, as a file in `incoming` with positional writes, hashed as its front grows. */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Intervals } from '../../async/intervals.ts'
import { GatewayError } from '../../errors.ts'
import { algorithmOf, type Digest } from '../../oci/digest.ts'
import type { Committed, Incoming } from '../store.ts'
import { isAbsence, storeError } from './fs-error.ts'
import type { GroupCommit } from './group-commit.ts'
import type { HashJob, Hasher } from './hasher.ts'
import { loadHeld, MapSaver } from './map-saver.ts'
import { removeFile, renameInto, type SmallFileWriter } from './small-file.ts'
import { readAt, stampOf } from './stored-blob.ts'

export interface FsIncomingOptions {
  readonly digest: Digest
  readonly path: string
  readonly mapPath: string
  readonly notePath: string
  /** Of this start of the machine, where it tells. */
  readonly bootId: string | undefined
  /** Where the bytes go once they are verified. */
  readonly finalPath: string
  readonly writer: SmallFileWriter
  readonly group: GroupCommit
  readonly hasher: Hasher
  /** Called once, when the file in `incoming` is ours no more: committed, kept or dropped. */
  readonly onFree: () => void
}

export class FsIncoming implements Incoming {
  readonly digest: Digest
  readonly held: Intervals
  readonly #options: FsIncomingOptions
  readonly #map: MapSaver
  #file: Promise<FileHandle> | undefined
  #job: Promise<HashJob> | undefined
  #computed: { readonly size: number; readonly digest: Promise<Digest> } | undefined
  #front = 0
  #state: 'open' | 'committing' | 'committed' | 'ended' = 'open'
  #synced: Promise<unknown> = Promise.resolve()

  private constructor(options: FsIncomingOptions, file: FileHandle | undefined, held: Intervals, syncedBytes: number) {
    this.#options = options
    this.digest = options.digest
    this.held = held
    this.#file = file && Promise.resolve(file)
    this.#map = new MapSaver({ ...options, held, syncedBytes })
  }

  /** Opens what an earlier run left, if its map is whole; else starts empty, and without a file before the first byte. */
  static async open(options: FsIncomingOptions): Promise<FsIncoming> {
    const { path } = options
    let file: FileHandle | undefined
    try {
      file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW)
      const stat = await file.stat()
      const earlier = stat.isFile() ? await loadHeld(options, stat.size) : undefined
      if (earlier !== undefined && earlier.held.bytes > 0)
        return new FsIncoming(options, file, earlier.held, earlier.syncedBytes)
    } catch (error) {
      await file?.close()
      if (!isAbsence(error)) throw storeError('open', path, error)
      file = undefined
    }
    await file?.close()
    await removeBody(options)
    return new FsIncoming(options, undefined, new Intervals(), 0)
  }

  /** Whether it is committed, kept, dropped, or just about to be. */
  get isEnding(): boolean {
    return this.#state !== 'open'
  }

  async write(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    this.#requireOpen('write')
    try {
      const file = await this.#openFile()
      const length = lengthOf(chunks)
      // The front is hashed and may be read already: it is never written again.
      let written = Math.min(length, Math.max(0, this.#front - offset))
      while (written < length) {
        const count = await this.#options.writer.disk.write(file, without(chunks, written), offset + written)
        if (count === 0) throw new Error('the disk took no byte')
        written += count
      }
      this.held.add(offset, offset + length)
      if (this.#state === 'open') this.#map.onGrown(file)
    } catch (error) {
      throw storeError('write', this.#options.path, error)
    }
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (this.#state === 'ended' || this.#file === undefined) throw this.#misuse('read')
    const bytesRead = await readAt(await this.#file, this.#options.path, target, position)
    if (bytesRead > 0) return bytesRead
    throw new GatewayError('STORE_FAILED', `read ${this.#options.path} at ${position}: the file ends before`)
  }

  advance(front: number): void {
    const final = Math.min(front, this.held.heldFrom(0))
    if (this.#state !== 'open' || this.#computed !== undefined || final <= this.#front) return
    this.#front = final
    this.#startJob().then(
      (job) => job.advance(final),
      () => undefined, // told to whoever asks for the digest
    )
  }

  computeDigest(size: number): Promise<Digest> {
    if (this.#computed?.size === size) return this.#computed.digest
    const computed = { size, digest: this.#computeDigest(size) }
    this.#computed = computed
    computed.digest.catch(() => {
      if (this.#computed === computed) this.#computed = undefined
    })
    return computed.digest
  }

  async commit(size: number): Promise<Committed> {
    this.#requireOpen('commit')
    const actual = await this.computeDigest(size)
    if (actual !== this.digest) throw this.#misuse(`give its name to ${size} bytes that hash to ${actual}`)
    this.#requireOpen('commit')
    this.#state = 'committing'
    try {
      return await this.#publish(size)
    } catch (error) {
      this.#state = 'open'
      throw storeError('rename to', this.#options.finalPath, error)
    }
  }

  async keep(): Promise<void> {
    if (this.#state !== 'open') return
    const file = await this.#file?.catch(() => undefined)
    if (file === undefined || this.held.bytes === 0) return this.drop()
    this.#state = 'ended'
    await this.#cancelJob()
    try {
      await this.#map.save(file)
      await file.close()
    } catch (error) {
      await this.#discard(file)
      throw storeError('save', this.#options.mapPath, error)
    } finally {
      this.#options.onFree()
    }
  }

  async drop(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'ended'
    try {
      await Promise.all([this.#cancelJob(), this.#map.stop()])
      await this.#discard(await this.#file?.catch(() => undefined))
    } finally {
      this.#options.onFree()
    }
  }

  async close(): Promise<void> {
    if (this.#state !== 'committed') return
    this.#state = 'ended'
    await this.#synced
    await (await this.#file)?.close().catch(() => undefined)
  }

  async #computeDigest(size: number): Promise<Digest> {
    this.#requireOpen('hash')
    if (!this.held.contains(0, size)) throw this.#misuse(`hash ${size} bytes, of which not all are here,`)
    this.#front = Math.max(this.#front, size)
    try {
      return await (await this.#startJob()).finish(size)
    } catch {
      this.#requireOpen('hash')
      // The thread may have ended since this job began: the bytes are all here, so they are read once more.
      this.#job = undefined
      return await (await this.#startJob()).finish(size)
    } finally {
      this.#job = undefined
    }
  }

  async #publish(size: number): Promise<Committed> {
    const { path, finalPath, writer, group } = this.#options
    await this.#map.stop()
    const file = await this.#openFile()
    // A transfer that was cut may have left bytes behind the end that nobody counts as held.
    if ((await file.stat()).size !== size) await file.truncate(size)
    await group.room()
    await renameInto(writer, path, finalPath)
    this.#state = 'committed'
    const stamp = stampOf(await file.stat())
    const durable = group.add(finalPath, 'bytes', file)
    this.#synced = durable
    await this.#map.remove().catch(() => undefined) // without its file a map means nothing
    this.#options.onFree()
    return { stamp, durable }
  }

  #openFile(): Promise<FileHandle> {
    this.#file ??= this.#createFile()
    return this.#file
  }

  async #createFile(): Promise<FileHandle> {
    const { path, writer } = this.#options
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    try {
      await writer.createFolder(dirname(path))
      return await open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
    } catch (error) {
      this.#file = undefined // space may come back: the next write tries again
      throw storeError('create', path, error)
    }
  }

  #startJob(): Promise<HashJob> {
    this.#job ??= this.#openJob()
    return this.#job
  }

  async #openJob(): Promise<HashJob> {
    const { path, hasher, digest } = this.#options
    const { ino: inode } = await (await this.#openFile()).stat()
    return hasher.start({ path, inode, algorithm: algorithmOf(digest) })
  }

  async #cancelJob(): Promise<void> {
    const job = await this.#job?.catch(() => undefined)
    job?.cancel()
  }

  async #discard(file: FileHandle | undefined): Promise<void> {
    await file?.close().catch(() => undefined)
    await removeBody(this.#options)
  }

  #requireOpen(verb: string): void {
    if (this.#state !== 'open') throw this.#misuse(verb)
  }

  #misuse(verb: string): GatewayError {
    return new GatewayError('STORE_FAILED', `cannot ${verb} ${this.#options.path}: it is ${this.#state}`)
  }
}

/** Removes body, map and note, the body last: without them it means nothing. */
async function removeBody({ path, mapPath, notePath }: FsIncomingOptions): Promise<void> {
  await removeFile(mapPath)
  await removeFile(notePath)
  await removeFile(path)
}

function lengthOf(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0)
}

/** The chunks less their first `count` bytes. */
function without(chunks: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  if (count === 0) return chunks
  let left = count
  return chunks.flatMap((chunk) => {
    const skipped = Math.min(left, chunk.byteLength)
    left -= skipped
    return skipped === chunk.byteLength ? [] : [chunk.subarray(skipped)]
  })
}
