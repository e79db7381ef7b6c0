/** `/v2/<name>/blobs/<digest>`: whole, in one range or in several, from a file or from a fill under way. */
import { randomUUID } from 'node:crypto'
import type { Interval } from '../async/intervals.ts'
import type { BlobOutcome, OpenedBlob } from '../cache/blob-cache.ts'
import type { NamespaceCache } from '../cache/namespace-cache.ts'
import { GatewayError } from '../errors.ts'
import type { Reply } from '../http/reply.ts'
import type { Digest } from '../oci/digest.ts'
import { errorReply } from './error-reply.ts'
import { BLOB_TYPE, blobHeaders, etagOf, matchesEtag, notModifiedHeaders } from './headers.ts'
import {
  contentRange,
  ifRangeAllows,
  multipartRanges,
  parseRange,
  unsatisfiedRange,
  type RangeChoice,
} from './range.ts'
import type { RegistryRequest } from './request.ts'

export async function serveBlob(cache: NamespaceCache, request: RegistryRequest<'blob'>): Promise<Reply> {
  const { repository, digest } = request.path
  const { headers, signal } = request
  const wanted = { repository, digest, signal }
  // HEAD ignores Range (RFC 9110 section 14.2); a client that has the bytes only wants to hear that they may be used.
  if (request.method === 'HEAD' || matchesEtag(headers.ifNoneMatch, digest)) {
    return statReply(digest, await cache.blobs.stat(wanted), request)
  }
  const range = ifRangeAllows(headers.ifRange, etagOf(digest)) ? headers.range : undefined
  let choice: RangeChoice = { kind: 'whole' }
  const select = (size: number): readonly Interval[] => {
    choice = parseRange(range, size)
    return spansOf(choice, size)
  }
  try {
    const opened = await cache.blobs.open({ ...wanted, isPartial: range !== undefined }, select)
    if (choice.kind === 'whole') cache.completer.noteBlob(repository, digest)
    return blobReply(digest, opened, choice)
  } catch (error) {
    if (error instanceof Unsatisfiable) return unsatisfiableReply(error.size, request.requestId)
    throw error
  }
}

function statReply(
  digest: Digest,
  stat: { size: number; outcome: BlobOutcome },
  request: RegistryRequest<'blob'>,
): Reply {
  const { size, outcome } = stat
  const headers = blobHeaders({ digest, size })
  if (matchesEtag(request.headers.ifNoneMatch, digest)) {
    return { status: 304, headers: notModifiedHeaders(headers), body: undefined, outcome }
  }
  return { status: 200, headers, body: undefined, outcome }
}

function spansOf(choice: RangeChoice, size: number): readonly Interval[] {
  switch (choice.kind) {
    case 'whole':
      return [{ from: 0, to: size }]
    case 'single':
      return [choice.range]
    case 'multiple':
      return choice.ranges
    case 'unsatisfiable':
      throw new Unsatisfiable(size)
  }
}

function blobReply(digest: Digest, { size, source, outcome }: OpenedBlob, choice: RangeChoice): Reply {
  const headers = blobHeaders({ digest, size })
  if (choice.kind === 'single') {
    const { range } = choice
    headers['content-length'] = String(range.to - range.from)
    headers['content-range'] = contentRange(range, size)
    return { status: 206, headers, body: { source, segments: [range] }, outcome }
  }
  if (choice.kind === 'multiple') {
    const boundary = randomUUID()
    const parts = multipartRanges(choice.ranges, { size, partType: BLOB_TYPE, boundary })
    headers['content-length'] = String(parts.contentLength)
    headers['content-type'] = parts.contentType
    return { status: 206, headers, body: { source, segments: parts.segments }, outcome }
  }
  return { status: 200, headers, body: { source, segments: [{ from: 0, to: size }] }, outcome }
}

function unsatisfiableReply(size: number, requestId: string): Reply {
  const reply = errorReply(new GatewayError('RANGE_INVALID', `the blob has ${size} bytes`), { requestId })
  return { ...reply, headers: { ...reply.headers, 'content-range': unsatisfiedRange(size) } }
}

/** Carries the size out of `select`, which is where it becomes known. */
class Unsatisfiable extends Error {
  readonly size: number
  constructor(size: number) {
    super(`no byte of the range lies within ${size} bytes`)
    this.size = size
  }
}
