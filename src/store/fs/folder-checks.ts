/** What can be wrong with a folder before the first byte: each problem is told with the command that mends it. */
import { access, constants, lstat, mkdir, open, readdir, readlink, realpath, rm, stat } from 'node:fs/promises'
import { randomUUID } from 'node:crypto'
import { dirname, join, resolve } from 'node:path'
import type { Dirent, Stats } from 'node:fs'
import { GatewayError } from '../../errors.ts'
import { BLOBS, INCOMING, QUARANTINE, REPOSITORIES } from '../layout.ts'
import { errnoOf, isAbsence } from './fs-error.ts'
import { quote } from './origin.ts'

/** Down to `docker/registry/v2`; below it the store opens nothing that is a link. */
const SYMLINK_DEPTH = 4

/** Creates the folder if need be and gives its real path: the configured one may itself be a link. */
export async function createDataFolder(path: string): Promise<string> {
  try {
    await createFolders(resolve(path))
    return await realpath(path)
  } catch (error) {
    const errno = errnoOf(error)
    const mend =
      errno === 'EACCES' || errno === 'EPERM'
        ? `create it as an administrator: sudo mkdir -p ${quote(path)} && sudo chown ${me()} ${quote(path)}`
        : errno === 'EROFS'
          ? 'the file system is read-only: mount a writable volume there, or set "data:" to a folder on one'
          : 'set "data:" to a folder that can be created'
    const file = errno === 'ENOTDIR' || errno === 'EEXIST' ? await firstFile(resolve(path)) : undefined
    const what =
      file === undefined
        ? `cannot be created (${errno ?? String(error)}); ${mend}`
        : `cannot be created: ${file} is a file, not a folder; move it away, or set "data:" to another folder`
    throw new GatewayError('STORE_UNUSABLE', `data folder ${path} ${what}`, { cause: error })
  }
}

/**
 * Creates `path` and the folders above it that are missing. Not by `mkdir` with `recursive`: where a file system says
 * ENOENT for a folder that is there (/proc does), Node 26 goes up and down for ever.
 */
async function createFolders(path: string): Promise<void> {
  // From the wanted folder up to the first that is there, then down again: each is tried twice at most.
  const missing: string[] = []
  for (let folder = path; !(await isFolder(folder)); folder = dirname(folder)) missing.push(folder)
  for (const folder of missing.toReversed()) {
    await mkdir(folder, { mode: 0o755 }).catch(async (error: unknown) => {
      // Somebody else made it meanwhile.
      if (errnoOf(error) !== 'EEXIST' || !(await isFolder(folder))) throw error
    })
  }
}

/** Rejects with ENOTDIR for a file, or below one. */
async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' && dirname(path) !== path) return undefined
    throw error
  })
  if (found?.isDirectory() === false) throw Object.assign(new Error(`${path} is a file`), { code: 'ENOTDIR' })
  return found !== undefined
}

/** The file at `path` or in the place of a folder above it. */
async function firstFile(path: string): Promise<string | undefined> {
  for (let folder = path; folder !== dirname(folder); folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined)
    if (found?.isDirectory() === false) return folder
  }
  return undefined
}

/** Throws `STORE_UNUSABLE` unless we may list `folder` and create, rename and remove files in it. */
export async function checkWritable(folder: string): Promise<void> {
  const probe = join(folder, `.probe-${randomUUID()}`)
  try {
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    await (await open(probe, 'wx', 0o644)).close()
    await rm(probe)
  } catch (error) {
    await rm(probe, { force: true }).catch(() => undefined)
    throw notWritable(folder, error, await lstat(folder).catch(() => undefined))
  }
}

function notWritable(folder: string, cause: unknown, stat: Stats | undefined): GatewayError {
  const errno = errnoOf(cause) ?? String(cause)
  const uid = process.geteuid?.()
  const say = (what: string): GatewayError => new GatewayError('STORE_UNUSABLE', `${folder} ${what}`, { cause })
  if (errno === 'EROFS') return say('is on a read-only file system; mount it writable, or set "data:" elsewhere')
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return say(`has no room for a single file (${errno}); free some space`)
  if (errno === 'ENOTDIR') return say('is no folder; move the file away, or set "data:" elsewhere')
  if (errno !== 'EACCES' && errno !== 'EPERM') return say(`cannot be written (${errno})`)
  if (stat !== undefined && uid !== undefined && stat.uid !== uid) {
    return say(
      `belongs to user ${stat.uid} and this gateway, user ${uid}, may not write it (${errno}); give it over: sudo chown -R ${me()} ${quote(folder)}`,
    )
  }
  return say(`is not writable for its owner, user ${uid} (${errno}); allow it: chmod u+rwx ${quote(folder)}`)
}

/**
 * Throws `STORE_UNUSABLE` on a file system that takes `A` and `a` for one name: tags differ by case.
 * `exists` is given for tests; no such file system can be made here without privileges.
 */
export async function checkCaseSensitive(folder: string, exists = fileExists): Promise<void> {
  const name = `.probe-${randomUUID()}`
  const path = join(folder, `${name}-a`)
  try {
    await (await open(path, 'wx', 0o644)).close()
    if (!(await exists(join(folder, `${name}-A`)))) return
  } catch (error) {
    throw notWritable(folder, error, undefined)
  } finally {
    await rm(path, { force: true }).catch(() => undefined)
  }
  throw new GatewayError(
    'STORE_UNUSABLE',
    `${folder} is on a case-insensitive file system: the tags "Latest" and "latest" would be one file; set "data:" to a folder on a case-sensitive one (on macOS a volume made by: diskutil apfs addVolume disk1 "Case-sensitive APFS" entrepot)`,
  )
}

/** Throws `STORE_UNUSABLE` when a symbolic link stands within the top folders: bytes would land outside the root. */
export async function refuseSymlinks(folder: string, depth = SYMLINK_DEPTH): Promise<void> {
  for (const entry of await readEntries(folder)) {
    const path = join(folder, entry.name)
    if (entry.isSymbolicLink()) {
      const target = resolve(folder, await readlink(path).catch(() => ''))
      throw new GatewayError(
        'STORE_UNUSABLE',
        `${path} is a symbolic link to ${target}: the store follows none; put the bytes here (rm ${quote(path)} && mv ${quote(target)} ${quote(path)}), mount them here, or set "data:" to where they are`,
      )
    }
    if (depth > 1 && entry.isDirectory()) await refuseSymlinks(path, depth - 1)
  }
}

/** Throws `STORE_UNUSABLE` when a namespace's folder, if it is there, cannot take bytes by rename. */
export async function checkNamespaceFolder(root: string): Promise<void> {
  const top = await statFolder(root)
  if (top === undefined) return
  await checkWritable(root)
  for (const part of [INCOMING, QUARANTINE, BLOBS, REPOSITORIES]) {
    const path = join(root, part)
    const stat = await statFolder(path)
    if (stat === undefined) continue
    await checkWritable(path)
    if (stat.dev !== top.dev) {
      throw new GatewayError(
        'STORE_UNUSABLE',
        `${path} is on another file system than ${root}: bytes get their name by a rename, which needs one; mount the whole of ${root} instead`,
      )
    }
  }
}

async function statFolder(path: string): Promise<Stats | undefined> {
  try {
    const stat = await lstat(path)
    if (stat.isDirectory()) return stat
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw notWritable(path, error, undefined)
  }
  throw new GatewayError(
    'STORE_UNUSABLE',
    `${path} is no folder; move it away: mv ${quote(path)} ${quote(`${path}.old`)}`,
  )
}

/** Entries of a folder; none when it may not be read (`lost+found` of a fresh volume) or is gone. */
async function readEntries(folder: string): Promise<Dirent[]> {
  return readdir(folder, { withFileTypes: true }).catch(() => [])
}

async function fileExists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

function me(): string {
  return `${process.geteuid?.() ?? 'USER'}:${process.getegid?.() ?? 'GROUP'}`
}
