/** What an earlier run left in `incoming` and `quarantine`: keeps what can still be used, within bounds of bytes and age. */
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import { INCOMING, MAP_SUFFIX, QUARANTINE } from '../layout.ts'
import { isAbsence, storeError } from './fs-error.ts'
import { loadIntervalMap } from './interval-map.ts'

export interface LeftoverBounds {
  /** Bytes that may stay in each of the two folders; the oldest go first. */
  readonly maxBytes: number
  readonly maxAgeMs: number
}

interface Leftover {
  readonly path: string
  readonly bytes: number
  readonly mtimeMs: number
}

/**
 * Deletes from `incoming` all but bodies with a valid map, and of those and of the quarantine what is too old or too
 * much. Runs before the namespace takes its first body. `now` is epoch ms.
 */
export async function sweepLeftovers(root: string, bounds: LeftoverBounds, now: number): Promise<void> {
  await sweepIncoming(join(root, INCOMING), bounds, now)
  await sweepQuarantine(root, bounds, now)
}

export async function sweepQuarantine(root: string, bounds: LeftoverBounds, now: number): Promise<void> {
  const folder = join(root, QUARANTINE)
  const leftovers: Leftover[] = []
  for (const name of await readNames(folder)) {
    const leftover = await stat(join(folder, name))
    if (leftover !== undefined) leftovers.push(leftover)
  }
  await trim(leftovers, bounds, now)
}

async function sweepIncoming(folder: string, bounds: LeftoverBounds, now: number): Promise<void> {
  const names = await readNames(folder)
  const resumable: Leftover[] = []
  const kept = new Set<string>()
  for (const name of names) {
    const leftover = await readResumable(folder, name)
    if (leftover === undefined) continue
    resumable.push(leftover)
    kept.add(name).add(name + MAP_SUFFIX)
  }
  for (const name of names) if (!kept.has(name)) await remove(join(folder, name))
  await trim(resumable, bounds, now)
}

async function readResumable(folder: string, name: string): Promise<Leftover | undefined> {
  const digest = parseFlatName(name)
  const path = join(folder, name)
  const leftover = digest && (await stat(path))
  if (digest === undefined || leftover === undefined) return undefined
  const held = await loadIntervalMap(path + MAP_SUFFIX, digest, leftover.bytes)
  return held !== undefined && held.bytes > 0 ? leftover : undefined
}

async function trim(leftovers: Leftover[], { maxBytes, maxAgeMs }: LeftoverBounds, now: number): Promise<void> {
  leftovers.sort((a, b) => b.mtimeMs - a.mtimeMs)
  let bytes = 0
  for (const leftover of leftovers) {
    bytes += leftover.bytes
    if (bytes <= maxBytes && now - leftover.mtimeMs <= maxAgeMs) continue
    await remove(leftover.path + MAP_SUFFIX)
    await remove(leftover.path)
  }
}

function parseFlatName(name: string): Digest | undefined {
  return parseDigest(name.replace('-', ':'))
}

async function readNames(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (isAbsence(error)) return []
    throw storeError('list', folder, error)
  }
}

async function stat(path: string): Promise<Leftover | undefined> {
  try {
    const found = await lstat(path)
    return found.isFile() ? { path, bytes: found.size, mtimeMs: found.mtimeMs } : undefined
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw storeError('look up', path, error)
  }
}

async function remove(path: string): Promise<void> {
  try {
    await rm(path, { force: true, recursive: true })
  } catch (error) {
    throw storeError('remove', path, error)
  }
}
