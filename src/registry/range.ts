/** Byte ranges of a blob whose size is known: RFC 9110 section 14. Pure. */
import type { Interval } from '../async/intervals.ts'
import type { Segment } from '../http/reply.ts'

export type RangeChoice =
  /** No range, or one that is to be ignored: 200 with everything. */
  | { readonly kind: 'whole' }
  | { readonly kind: 'single'; readonly range: Interval }
  /** In the order asked for, not merged: clients count the parts and expect them in their order. */
  | { readonly kind: 'multiple'; readonly ranges: readonly Interval[] }
  /** 416 with {@link unsatisfiedRange}. */
  | { readonly kind: 'unsatisfiable' }

/** More ranges than this and the whole blob is sent. Podman's and stargz's lists stay below it. */
const MAX_RANGES = 1000
/** RFC 9110 section 14.2 names more than two overlapping ranges as the mark of an attack. */
const MAX_OVERLAPS = 2
const WHOLE: RangeChoice = { kind: 'whole' }
const SPEC = /^(?:(\d+)-(\d*)|-(\d+))$/

/**
 * Chooses what a GET with this `Range` gets of `size` bytes. Garbage, other units and lists made to hurt are ignored, as
 * the RFC allows. An end beyond the last byte is clamped: Docker asks for one too many. Never throws.
 */
export function parseRange(header: string | undefined, size: number): RangeChoice {
  // Nothing of an empty body can be named by a range, and clients that send `bytes=0-` with every request want 200.
  if (header === undefined || size === 0) return WHOLE
  const equals = header.indexOf('=')
  if (equals === -1 || header.slice(0, equals).trim().toLowerCase() !== 'bytes') return WHOLE
  const specs = header
    .slice(equals + 1)
    .split(',')
    .map((spec) => spec.trim())
    .filter((spec) => spec !== '')
  if (specs.length === 0 || specs.length > MAX_RANGES) return WHOLE
  const ranges: Interval[] = []
  for (const spec of specs) {
    const range = parseSpec(spec, size)
    if (range === 'malformed') return WHOLE
    if (range !== undefined) ranges.push(range)
  }
  const [only] = ranges
  if (only === undefined) return { kind: 'unsatisfiable' }
  if (ranges.length === 1) return { kind: 'single', range: only }
  return isAbusive(ranges, size) ? WHOLE : { kind: 'multiple', ranges }
}

/** One spec as an interval; undefined when it is valid but lies outside. */
function parseSpec(spec: string, size: number): Interval | 'malformed' | undefined {
  const match = SPEC.exec(spec)
  if (match === null) return 'malformed'
  const [, first, last, suffix] = match
  if (suffix !== undefined) {
    const length = Number(suffix)
    return length === 0 ? undefined : { from: Math.max(0, size - length), to: size }
  }
  const from = Number(first)
  const lastByte = last === undefined || last === '' ? Infinity : Number(last)
  if (lastByte < from) return 'malformed'
  return from >= size ? undefined : { from, to: Math.min(size, lastByte + 1) }
}

/** Whether the list would cost more than the whole: too many overlaps, or more bytes than there are. */
function isAbusive(ranges: readonly Interval[], size: number): boolean {
  const sorted = ranges.toSorted((a, b) => a.from - b.from)
  let reached = 0
  let overlaps = 0
  let bytes = 0
  for (const { from, to } of sorted) {
    if (from < reached) overlaps++
    reached = Math.max(reached, to)
    bytes += to - from
  }
  return overlaps > MAX_OVERLAPS || bytes > size
}

/**
 * Whether an `If-Range` allows the range. Only a strong validator that names these very bytes does; a date cannot, since we
 * send none. Rule: RFC 9110 section 13.1.5.
 */
export function ifRangeAllows(header: string | undefined, etag: string): boolean {
  return header === undefined || header.trim() === etag
}

/** `Content-Range` of a 206. The last position is inclusive there. */
export function contentRange({ from, to }: Interval, size: number): string {
  return `bytes ${from}-${to - 1}/${size}`
}

/** `Content-Range` of a 416. */
export function unsatisfiedRange(size: number): string {
  return `bytes */${size}`
}

export interface Multipart {
  readonly contentType: string
  readonly contentLength: number
  readonly segments: readonly Segment[]
}

export interface MultipartOptions {
  readonly size: number
  /** Media type of each part. */
  readonly partType: string
  /** Random, so that no blob can hold it on purpose: 1 to 70 letters and digits (RFC 2046 section 5.1.1). */
  readonly boundary: string
}

/** Lays out a `multipart/byteranges` body, one part per range in the given order, with its exact length. */
export function multipartRanges(ranges: readonly Interval[], options: MultipartOptions): Multipart {
  const segments: Segment[] = []
  let contentLength = 0
  const push = (text: string): void => {
    const bytes = Buffer.from(text, 'latin1')
    segments.push(bytes)
    contentLength += bytes.length
  }
  for (const [at, range] of ranges.entries()) {
    const start = at === 0 ? '' : '\r\n'
    push(
      `${start}--${options.boundary}\r\nContent-Type: ${options.partType}\r\n` +
        `Content-Range: ${contentRange(range, options.size)}\r\n\r\n`,
    )
    segments.push(range)
    contentLength += range.to - range.from
  }
  push(`\r\n--${options.boundary}--\r\n`)
  return { contentType: `multipart/byteranges; boundary=${options.boundary}`, contentLength, segments }
}
