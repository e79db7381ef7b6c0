/**
 * The form of the files beside an incoming one that say which of its bytes are there. Whether those bytes are synced is
 * the writer's part (`map-saver.ts`); the digest of the whole is checked in the end all the same.
 */
import { crc32 } from 'node:zlib'
import { Intervals, type Interval } from '../../async/intervals.ts'
import { readSmallFile } from './small-file.ts'

const VERSION = 1
/** Random ranges of a lazy puller make thousands of intervals, not more; a larger map is not saved. */
const MAX_INTERVALS = 65_536
const MAX_MAP_BYTES = 4 * 1024 * 1024

/** The map's file content, `subject` its digest and what else must be the same; undefined when it would be larger than we load. */
export function formatIntervalMap(subject: string, held: readonly Interval[]): Buffer | undefined {
  if (held.length > MAX_INTERVALS) return undefined
  const intervals = held.map(({ from, to }) => [from, to])
  const content = Buffer.from(
    JSON.stringify({ version: VERSION, digest: subject, intervals, check: checkOf(subject, intervals) }),
  )
  return content.byteLength > MAX_MAP_BYTES ? undefined : content
}

/** Parses a map of `subject` for a file of `fileSize` bytes; undefined unless every part of it is right. */
export function parseIntervalMap(content: Uint8Array, subject: string, fileSize: number): Intervals | undefined {
  const map = parseJson(content)
  if (typeof map !== 'object' || map === null) return undefined
  if (!('version' in map && map.version === VERSION && 'digest' in map && map.digest === subject)) return undefined
  if (!('intervals' in map && Array.isArray(map.intervals) && map.intervals.length <= MAX_INTERVALS)) return undefined
  if (!('check' in map && map.check === checkOf(subject, map.intervals))) return undefined
  const held = new Intervals()
  for (const interval of map.intervals as readonly unknown[]) {
    if (!isIntervalWithin(interval, fileSize)) return undefined
    held.add(interval[0], interval[1])
  }
  return held
}

export async function loadIntervalMap(path: string, subject: string, fileSize: number): Promise<Intervals | undefined> {
  const content = await readSmallFile(path, MAX_MAP_BYTES)
  return content && parseIntervalMap(content, subject, fileSize)
}

function isIntervalWithin(interval: unknown, fileSize: number): interval is [number, number] {
  if (!Array.isArray(interval) || interval.length !== 2) return false
  const [from, to] = interval as unknown[]
  return (
    Number.isSafeInteger(from) &&
    Number.isSafeInteger(to) &&
    0 <= Number(from) &&
    Number(from) < Number(to) &&
    Number(to) <= fileSize
  )
}

function checkOf(subject: string, intervals: readonly unknown[]): number {
  return crc32(`${VERSION} ${subject} ${JSON.stringify(intervals)}`)
}

function parseJson(content: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(content).toString('utf8'))
  } catch {
    return undefined
  }
}
