/** Bytes that stand under their final name without proof, read and hashed where they are; nothing here writes to them. */
import { constants } from 'node:fs'
import { lstat, open, type FileHandle } from 'node:fs/promises'
import { Intervals } from '../../async/intervals.ts'
import { GatewayError } from '../../errors.ts'
import { algorithmOf, type Digest } from '../../oci/digest.ts'
import type { Committed, FileStamp, Incoming } from '../store.ts'
import { isAbsence, storeError } from './fs-error.ts'
import type { GroupCommit } from './group-commit.ts'
import type { HashJob, Hasher } from './hasher.ts'
import { isPlausible, readAt, stampOf } from './stored-blob.ts'

export interface UnverifiedOptions {
  readonly digest: Digest
  readonly path: string
  readonly group: GroupCommit
  readonly hasher: Hasher
  /** Moves the file aside. */
  readonly quarantine: () => Promise<void>
}

export class UnverifiedBlob implements Incoming {
  readonly digest: Digest
  readonly held: Intervals
  readonly #options: UnverifiedOptions
  readonly #file: FileHandle
  readonly #stamp: FileStamp
  readonly #job: HashJob
  #computed: Promise<Digest> | undefined
  #state: 'open' | 'committed' | 'ended' = 'open'
  #synced: Promise<unknown> = Promise.resolve()

  private constructor(options: UnverifiedOptions, file: FileHandle, stat: FileStamp & { readonly ino: number }) {
    this.#options = options
    this.#file = file
    this.#stamp = stampOf(stat)
    this.digest = options.digest
    this.held = new Intervals([{ from: 0, to: stat.size }])
    this.#job = options.hasher.start({ path: options.path, inode: stat.ino, algorithm: algorithmOf(options.digest) })
  }

  static async open(options: UnverifiedOptions): Promise<UnverifiedBlob | undefined> {
    let file: FileHandle | undefined
    try {
      file = await open(options.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      const stat = await file.stat()
      if (stat.isFile() && isPlausible(options.digest, stat.size)) return new UnverifiedBlob(options, file, stat)
    } catch (error) {
      await file?.close()
      if (isAbsence(error)) return undefined
      throw storeError('open', options.path, error)
    }
    await file.close()
    return undefined
  }

  async write(): Promise<void> {
    throw this.#failure('write: its bytes are all here, they only wait to be verified')
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const bytesRead = await readAt(this.#file, this.#options.path, target, position)
    if (bytesRead > 0) return bytesRead
    throw this.#failure(
      `read at ${position}: the file ended there, it had ${this.#stamp.size} bytes when it was opened`,
    )
  }

  advance(front: number): void {
    this.#job.advance(Math.min(front, this.#stamp.size))
  }

  async computeDigest(size: number): Promise<Digest> {
    if (size !== this.#stamp.size) throw this.#failure(`hash ${size} bytes: the file has ${this.#stamp.size}`)
    this.#computed ??= this.#job.finish(size)
    return this.#computed
  }

  async commit(size: number): Promise<Committed> {
    const actual = await this.computeDigest(size)
    if (actual !== this.digest) throw this.#failure(`confirm: its ${size} bytes hash to ${actual}`)
    const { path, group } = this.#options
    const stamp = stampOf(await this.#file.stat())
    if (stamp.size !== this.#stamp.size || stamp.mtimeMs !== this.#stamp.mtimeMs) {
      throw this.#failure('confirm: somebody changed the file while it was hashed')
    }
    this.#state = 'committed'
    await group.room()
    // What was hashed may stand in the page cache alone: it is durable only after a sync of our own.
    const durable = group.add(path, 'bytes', this.#file)
    this.#synced = durable
    return { stamp, durable }
  }

  async keep(): Promise<void> {
    if (this.#state === 'open') await this.#release()
  }

  async drop(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'ended'
    try {
      const [named, opened] = await Promise.all([lstat(this.#options.path), this.#file.stat()])
      // Somebody may have put other bytes under this name since.
      if (named.ino === opened.ino) await this.#options.quarantine()
    } catch (error) {
      if (!isAbsence(error)) throw storeError('quarantine', this.#options.path, error)
    } finally {
      await this.#release()
    }
  }

  async close(): Promise<void> {
    if (this.#state === 'committed') await this.#release()
  }

  async #release(): Promise<void> {
    this.#state = 'ended'
    this.#job.cancel()
    await this.#synced
    await this.#file.close().catch(() => undefined)
  }

  #failure(what: string): GatewayError {
    return new GatewayError('STORE_FAILED', `${this.#options.path}: cannot ${what}`)
  }
}
