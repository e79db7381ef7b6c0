/** The calls that can lose data, gathered so that syncs queue in one lane and tests can make each of them fail. */
import { open, rename, type FileHandle } from 'node:fs/promises'
import { constants } from 'node:fs'

export interface Disk {
  /** Writes some of the chunks, one after another, at `position` and says how many bytes. */
  write(file: FileHandle, chunks: readonly Uint8Array[], position: number): Promise<number>
  /** Forces a file's bytes to the medium. After a failure the same handle must not be tried again: the pages are gone. */
  sync(file: FileHandle): Promise<void>
  /** Forces a folder's entries to the medium. */
  syncFolder(path: string): Promise<void>
  rename(from: string, to: string): Promise<void>
}

export class SystemDisk implements Disk {
  // libuv has four threads by default and reads need some of them: a slow disk may hold two, never all.
  readonly #syncs = new Lane(2)

  async write(file: FileHandle, chunks: readonly Uint8Array[], position: number): Promise<number> {
    return (await file.writev(chunks, position)).bytesWritten
  }

  sync(file: FileHandle): Promise<void> {
    return this.#syncs.run(() => file.datasync())
  }

  syncFolder(path: string): Promise<void> {
    return this.#syncs.run(async () => {
      await using folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
      await folder.sync()
    })
  }

  rename(from: string, to: string): Promise<void> {
    return rename(from, to)
  }
}

/** Runs at most `width` pieces of work at a time, in the order they came. */
class Lane {
  readonly #width: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(width: number) {
    this.#width = width
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#width) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#running++
    try {
      return await work()
    } finally {
      // The place is handed on, so nobody who comes now can overtake the one who waited.
      const next = this.#waiting.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}
