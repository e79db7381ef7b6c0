/** A blob reply checked against what was asked, and its body held to what it announced. */
import { GatewayError, type ErrorCode } from '../errors.ts'
import { lengthOf, mediaTypeOf } from './replies.ts'
import type { IncomingReply } from './transport.ts'
import { TransportError } from './transport-error.ts'
import type { BlobRange, BlobStream } from './upstream.ts'

/** The Range header for a part; undefined for the whole, which some registries answer better without one. */
export function rangeHeader({ from, to }: BlobRange): string | undefined {
  if (from === 0 && to === undefined) return undefined
  return to === undefined ? `bytes=${from}-` : `bytes=${from}-${to - 1}`
}

export interface BlobStreamOptions {
  readonly range: BlobRange
  /** Length of the whole as an earlier reply of the same fill announced it. */
  readonly knownSize: number | undefined
  readonly subject: string
}

interface Extent {
  readonly from: number
  readonly to: number | undefined
  readonly size: number | undefined
}

/**
 * The stream of a 200 or 206. UPSTREAM_INVALID, with the connection ended, when the reply is encoded, has several parts,
 * starts elsewhere than asked, goes beyond it, or disagrees with itself or with `knownSize`. Rules: faults.md R71, row 13.
 */
export function openStream(reply: IncomingReply, options: BlobStreamOptions): BlobStream {
  let extent: Extent
  try {
    extent = extentOf(reply, options)
  } catch (error) {
    reply.body.cancel()
    throw error
  }
  return { ...extent, body: holdTo(extent, reply, options.subject), cancel: () => reply.body.cancel() }
}

function extentOf({ status, headers }: IncomingReply, { range, knownSize, subject }: BlobStreamOptions): Extent {
  const invalid = (what: string): GatewayError => new GatewayError('UPSTREAM_INVALID', `${subject}: ${what}`)
  const encoding = headers.get('content-encoding')?.trim().toLowerCase()
  if (encoding !== undefined && encoding !== '' && encoding !== 'identity') throw invalid('unexpected content encoding')
  if (mediaTypeOf(headers) === 'multipart/byteranges') throw invalid('several parts to a request for one')
  const length = lengthOf(headers)
  const extent = status === 206 ? partOf(headers.get('content-range'), invalid) : { from: 0, to: length, size: length }
  if (status === 206) {
    if (rangeHeader(range) === undefined) throw invalid('206 to a request without a range')
    if (extent.from !== range.from) throw invalid(`asked from byte ${range.from}, got from byte ${extent.from}`)
    if (range.to !== undefined && extent.to !== undefined && extent.to > range.to)
      throw invalid('more than the range asked for')
    if (length !== undefined && extent.to !== undefined && length !== extent.to - extent.from) {
      throw invalid('Content-Length and Content-Range disagree')
    }
  }
  if (knownSize !== undefined && extent.size !== undefined && extent.size !== knownSize) {
    throw invalid(`the blob was ${knownSize} bytes long before and is ${extent.size} now`)
  }
  return extent
}

function partOf(header: string | undefined, invalid: (what: string) => GatewayError): Extent {
  const [, first, last, total] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(header?.trim() ?? '') ?? []
  if (first === undefined || last === undefined || total === undefined)
    throw invalid('206 without a usable Content-Range')
  const extent = { from: Number(first), to: Number(last) + 1, size: total === '*' ? undefined : Number(total) }
  const isPossible = extent.to > extent.from && (extent.size === undefined || extent.to <= extent.size)
  if (!isPossible) throw invalid('an impossible Content-Range')
  return extent
}

/** Ends cleanly only when every announced byte came and none besides. */
async function* holdTo(
  { from, to }: Extent,
  { body }: IncomingReply,
  subject: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const announced = to === undefined ? undefined : to - from
  let got = 0
  const fail = (code: ErrorCode, what: string, cause?: unknown): GatewayError =>
    new GatewayError(code, `${subject}: ${what} after ${got} of ${announced ?? 'an unknown number of'} bytes`, {
      cause,
    })
  try {
    for await (const chunk of body) {
      if (announced !== undefined && got + chunk.length > announced)
        throw fail('UPSTREAM_INVALID', 'more bytes than announced')
      got += chunk.length
      yield chunk
    }
  } catch (error) {
    if (!(error instanceof TransportError)) throw error
    const code = error.kind === 'protocol' ? 'UPSTREAM_INVALID' : 'UPSTREAM_UNREACHABLE'
    throw fail(code, `${error.kind} (${error.message})`, error)
  }
  if (announced !== undefined && got < announced) throw fail('UPSTREAM_UNREACHABLE', 'the body ended')
}
