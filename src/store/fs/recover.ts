/** What an earlier run left in `incoming` and `quarantine`: keeps what can still be used, within bounds of bytes and age. */
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import { INCOMING, MAP_SUFFIX, NOTE_SUFFIX, QUARANTINE } from '../layout.ts'
import type { LeftoverBounds } from '../store.ts'
import { isAbsence, storeError } from './fs-error.ts'
import { loadHeld } from './map-saver.ts'
import { diskBytesOf } from './stored-blob.ts'

interface Leftover {
  readonly path: string
  readonly bytes: number
  readonly diskBytes: number
  readonly mtimeMs: number
}

export interface SweepOptions {
  readonly bounds: LeftoverBounds
  /** Epoch ms. */
  readonly now: number
  /** Of this start of the machine, where it tells. */
  readonly bootId: string | undefined
}

/**
 * Deletes from `incoming` all but bodies with a valid map or note, and of those and of the quarantine what is too old or too
 * much. Runs before the namespace takes its first body.
 */
export async function sweepLeftovers(root: string, options: SweepOptions): Promise<void> {
  await sweepIncoming(join(root, INCOMING), options)
  await sweepQuarantine(root, options.bounds, options.now)
}

/** Resolves to what the rest takes of the disk. */
export async function sweepQuarantine(root: string, bounds: LeftoverBounds, now: number): Promise<number> {
  const folder = join(root, QUARANTINE)
  const leftovers: Leftover[] = []
  for (const name of await readNames(folder)) {
    const leftover = await stat(join(folder, name))
    if (leftover !== undefined) leftovers.push(leftover)
  }
  return trim(leftovers, bounds, now, removeLeftover)
}

export interface TrimBodiesOptions {
  readonly root: string
  readonly bounds: LeftoverBounds
  readonly now: number
  /** Bodies that are being written: not counted, never touched. */
  readonly isOpen: (digest: Digest) => boolean
  /** Takes the body as its own and deletes it; rejects when somebody else has it meanwhile. */
  readonly drop: (digest: Digest) => Promise<void>
}

/** Drops interrupted bodies beyond the bounds while the store is in use; resolves to what the rest takes of the disk. */
export async function trimBodies({ root, bounds, now, isOpen, drop }: TrimBodiesOptions): Promise<number> {
  const folder = join(root, INCOMING)
  const leftovers: (Leftover & { readonly digest: Digest })[] = []
  for (const name of await readNames(folder)) {
    const digest = parseFlatName(name)
    const leftover = digest && !isOpen(digest) ? await stat(join(folder, name)) : undefined
    if (digest !== undefined && leftover !== undefined) leftovers.push({ ...leftover, digest })
  }
  return trim(leftovers, bounds, now, ({ digest }) => drop(digest).catch(() => undefined))
}

async function sweepIncoming(folder: string, { bounds, now, bootId }: SweepOptions): Promise<void> {
  const names = await readNames(folder)
  const resumable: Leftover[] = []
  const kept = new Set<string>()
  for (const name of names) {
    const leftover = await readResumable(folder, name, bootId)
    if (leftover === undefined) continue
    resumable.push(leftover)
    kept
      .add(name)
      .add(name + MAP_SUFFIX)
      .add(name + NOTE_SUFFIX)
  }
  for (const name of names) if (!kept.has(name)) await remove(join(folder, name))
  await trim(resumable, bounds, now, removeLeftover)
}

async function readResumable(folder: string, name: string, bootId: string | undefined): Promise<Leftover | undefined> {
  const digest = parseFlatName(name)
  const path = join(folder, name)
  const leftover = digest && (await stat(path))
  if (digest === undefined || leftover === undefined) return undefined
  const place = { digest, mapPath: path + MAP_SUFFIX, notePath: path + NOTE_SUFFIX, bootId }
  const { held } = await loadHeld(place, leftover.bytes)
  return held.bytes > 0 ? leftover : undefined
}

/** Removes what is too old or too much, and resolves to what the rest takes of the disk. */
async function trim<L extends Leftover>(
  leftovers: L[],
  { maxBytes, maxAgeMs }: LeftoverBounds,
  now: number,
  drop: (leftover: L) => Promise<void>,
): Promise<number> {
  leftovers.sort((a, b) => b.mtimeMs - a.mtimeMs)
  let bytes = 0
  let diskBytes = 0
  for (const leftover of leftovers) {
    bytes += leftover.bytes
    if (bytes <= maxBytes && now - leftover.mtimeMs <= maxAgeMs) diskBytes += leftover.diskBytes
    else await drop(leftover)
  }
  return diskBytes
}

/** Map and note first: without them the body means nothing. */
async function removeLeftover({ path }: Leftover): Promise<void> {
  await remove(path + MAP_SUFFIX)
  await remove(path + NOTE_SUFFIX)
  await remove(path)
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
    if (!found.isFile()) return undefined
    return { path, bytes: found.size, diskBytes: diskBytesOf(found), mtimeMs: found.mtimeMs }
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
