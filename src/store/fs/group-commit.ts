/**
 * Makes what was renamed into place survive a power cut, in the background and many at a time. While one group is
 * synced the next one gathers; so a busy store pays for one journal commit where it would have paid for hundreds.
 */
import { constants } from 'node:fs'
import { mkdir, open, rmdir, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Disk } from './disk.ts'
import { isAbsence, storeError } from './fs-error.ts'

/** One published file. */
interface Entry {
  readonly path: string
  /** The handle it was written through, which stays the caller's; absent for small files, which are opened again. */
  readonly file: FileHandle | undefined
  /** Bytes are synced before the names that point at them. */
  readonly phase: 'bytes' | 'name'
  readonly settle: (durable: boolean) => void
}

/** Above this many files in wait, new ones wait for the group under way: each holds a file descriptor. */
const MAX_WAITING = 256

export class GroupCommit {
  readonly #disk: Disk
  readonly #discard: (path: string, file: FileHandle) => Promise<void>
  #waiting: Entry[] = []
  /** Folders with entries not yet synced; a group takes all of them, whoever created them. */
  #folders = new Set<string>()
  #running: Promise<void> | undefined
  #last: Promise<unknown> = Promise.resolve()

  /** `discard` removes bytes whose sync failed: what the page cache still shows may never reach the medium. */
  constructor(disk: Disk, discard: (path: string, file: FileHandle) => Promise<void>) {
    this.#disk = disk
    this.#discard = discard
  }

  /** Creates a folder and its parents, and remembers which entries that made. */
  async createFolder(path: string): Promise<void> {
    try {
      const first = await mkdir(path, { recursive: true, mode: 0o755 })
      this.#folders.add(path)
      if (first === undefined) return
      for (let made = path; made.length >= first.length; made = dirname(made)) this.#folders.add(dirname(made))
    } catch (error) {
      throw storeError('create', path, error)
    }
  }

  /** Removes a folder if nothing is left in it, and queues the sync of what was removed in or with it. */
  async removeFolder(path: string): Promise<void> {
    const isGone = await rmdir(path).then(
      () => true,
      () => false,
    )
    void this.add(isGone ? dirname(path) : path, 'name')
  }

  /** Waits while too much is unsynced. */
  async room(): Promise<void> {
    while (this.#waiting.length >= MAX_WAITING) await this.#running
  }

  /**
   * Queues a file that has its final name. Resolves true once its bytes, its name and every folder on the way are
   * synced; false when one of them could not be. Never rejects.
   */
  add(path: string, phase: Entry['phase'], file?: FileHandle): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    this.#folders.add(dirname(path))
    this.#waiting.push({ path, file, phase, settle: resolve })
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
    this.#last = promise
    return promise
  }

  /** Waits until all that was added so far is settled: groups follow each other, so the last one added settles last. */
  async flush(): Promise<void> {
    await this.#last
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting
      const folders = this.#folders
      this.#waiting = []
      this.#folders = new Set()
      await this.#commit(group, folders)
    }
  }

  // 1. bytes  2. names  3. the folders both stand in. A folder that fails makes the whole group not durable: which of
  // its entries the medium has is unknown.
  async #commit(group: readonly Entry[], folders: ReadonlySet<string>): Promise<void> {
    const synced = new Map<Entry, boolean>()
    for (const phase of ['bytes', 'name'] as const) {
      const entries = group.filter((entry) => entry.phase === phase)
      await Promise.all(entries.map(async (entry) => synced.set(entry, await this.#syncEntry(entry))))
    }
    const complete = await Promise.all([...folders].map((folder) => this.#syncFolder(folder)))
    const foldersSynced = complete.every(Boolean)
    for (const entry of group) entry.settle(foldersSynced && synced.get(entry) === true)
  }

  async #syncEntry(entry: Entry): Promise<boolean> {
    const file =
      entry.file ?? (await open(entry.path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined))
    if (file === undefined) return false
    try {
      await this.#disk.sync(file)
      return true
    } catch {
      if (entry.phase === 'bytes') await this.#discard(entry.path, file).catch(() => undefined)
      return false
    } finally {
      if (file !== entry.file) await file.close().catch(() => undefined)
    }
  }

  /** A folder that is gone has nothing left to lose. */
  async #syncFolder(path: string): Promise<boolean> {
    try {
      await this.#disk.syncFolder(path)
      return true
    } catch (error) {
      return isAbsence(error)
    }
  }
}
