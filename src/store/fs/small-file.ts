/** Small files whole: read under a cap, written so that no reader ever sees half of one. */
import { constants } from 'node:fs'
import { open, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { randomUUID } from 'node:crypto'
import { TEMPORARY_SUFFIX } from '../layout.ts'
import type { Disk } from './disk.ts'
import { errnoOf, isAbsence, storeError } from './fs-error.ts'

/** Reads a file of at most `maxBytes`; undefined when it is absent, no regular file, or larger. */
export async function readSmallFile(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stat = await file.stat()
    if (!stat.isFile() || stat.size > maxBytes) return undefined
    const bytes = Buffer.allocUnsafe(stat.size)
    let length = 0
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length, length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    return bytes.subarray(0, length)
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw storeError('read', path, error)
  }
}

/** Removes a file if it is there. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path)
  } catch (error) {
    if (!isAbsence(error)) throw storeError('remove', path, error)
  }
}

export interface SmallFileWriter {
  readonly disk: Disk
  /** Folder on the same file system for the file before its rename; swept at the next start. */
  readonly temporaryFolder: string
  readonly createFolder: (path: string) => Promise<void>
}

/** Writes `content` at `path` by a temporary file and a rename, creating folders. Not synced: that is the group's part. */
export async function writeSmallFile(writer: SmallFileWriter, path: string, content: Uint8Array): Promise<void> {
  const temporary = join(writer.temporaryFolder, `${randomUUID()}${TEMPORARY_SUFFIX}`)
  try {
    await writer.createFolder(writer.temporaryFolder)
    await writeNew(writer.disk, temporary, content)
    await renameInto(writer, temporary, path)
  } catch (error) {
    await removeFile(temporary).catch(() => undefined)
    throw storeError('write', path, error)
  }
}

/** Renames into a folder that is created first, and again when somebody removed it in between. */
export async function renameInto(
  writer: Pick<SmallFileWriter, 'disk' | 'createFolder'>,
  from: string,
  to: string,
): Promise<void> {
  await writer.createFolder(dirname(to))
  try {
    await writer.disk.rename(from, to)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    await writer.createFolder(dirname(to))
    await writer.disk.rename(from, to)
  }
}

async function writeNew(disk: Disk, path: string, content: Uint8Array): Promise<void> {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  await using file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
  let length = 0
  while (length < content.byteLength) length += await disk.write(file, [content.subarray(length)], length)
}
