/** A stored blob open for reading. */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { GatewayError } from '../../errors.ts'
import { algorithmOf, digestOf, type Digest } from '../../oci/digest.ts'
import type { FileStamp, StoredBlob } from '../store.ts'
import { isAbsence, storeError } from './fs-error.ts'

export class FsStoredBlob implements StoredBlob {
  readonly digest: Digest
  readonly stamp: FileStamp
  readonly #path: string
  readonly #file: FileHandle

  private constructor(digest: Digest, path: string, file: FileHandle, stamp: FileStamp) {
    this.digest = digest
    this.stamp = stamp
    this.#path = path
    this.#file = file
  }

  /** Opens the blob's file; undefined when it is absent or cannot be what its name says ({@link isPlausible}). */
  static async open(digest: Digest, path: string): Promise<FsStoredBlob | undefined> {
    let file: FileHandle | undefined
    try {
      // O_NONBLOCK: a FIFO planted under this name must not hold a thread.
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      const stat = await file.stat()
      if (stat.isFile() && isPlausible(digest, stat.size)) return new FsStoredBlob(digest, path, file, stampOf(stat))
    } catch (error) {
      await file?.close()
      if (isAbsence(error)) return undefined
      throw storeError('open', path, error)
    }
    await file.close()
    return undefined
  }

  get size(): number {
    return this.stamp.size
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const bytesRead = await readAt(this.#file, this.#path, target, position)
    if (bytesRead > 0) return bytesRead
    throw new GatewayError(
      'STORE_FAILED',
      `read ${this.#path} at ${position}: the file ended there, it had ${this.size} bytes when it was opened`,
    )
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

export async function readAt(file: FileHandle, path: string, target: Uint8Array, position: number): Promise<number> {
  try {
    return (await file.read(target, 0, target.byteLength, position)).bytesRead
  } catch (error) {
    throw storeError('read', path, error)
  }
}

export function stampOf(stat: FileStamp): FileStamp {
  return { size: stat.size, mtimeMs: stat.mtimeMs }
}

/** What a file takes of the disk. POSIX counts blocks of 512 bytes, whatever the file system's own are. */
export function diskBytesOf(stat: { readonly blocks: number }): number {
  return stat.blocks * 512
}

/** A file left empty by a crash is told from the one blob that is empty (distribution#3722: 200 with no bytes). */
export function isPlausible(digest: Digest, size: number): boolean {
  return size > 0 || digest === digestOf(new Uint8Array(), algorithmOf(digest))
}
