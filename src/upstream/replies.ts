/** Reading what a successful reply says. */
import { GatewayError } from '../errors.ts'
import { parseDigest } from '../oci/digest.ts'
import type { IncomingReply, ReplyHeaders } from './transport.ts'
import type { ManifestHead } from './upstream.ts'

/** Content types that say nothing about a manifest: what object stores and proxies answer HEAD with. */
const MEANINGLESS_TYPES: readonly string[] = ['application/octet-stream', 'binary/octet-stream', 'text/plain']

/** Content-Type without parameters, lower case; undefined when missing. */
export function mediaTypeOf(headers: ReplyHeaders): string | undefined {
  const type = headers.get('content-type')?.split(';')[0]?.trim().toLowerCase()
  return type === undefined || type === '' ? undefined : type
}

/** Content-Length; undefined when missing or no number. */
export function lengthOf(headers: ReplyHeaders): number | undefined {
  const text = headers.get('content-length')
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** What a HEAD of a manifest tells; a length of 0 and a type of "some bytes" are how registries leave it out. */
export function headOf({ headers }: IncomingReply): ManifestHead {
  const type = mediaTypeOf(headers)
  const length = headers.get('content-encoding') === undefined ? lengthOf(headers) : undefined
  return {
    digest: parseDigest(headers.get('docker-content-digest') ?? ''),
    mediaType: type !== undefined && MEANINGLESS_TYPES.includes(type) ? undefined : type,
    size: length === 0 ? undefined : length,
  }
}

/** A login or block page comes with 200 too (wire.md trap 27): UPSTREAM_INVALID, the body given up. */
export function refusePage({ headers, body }: IncomingReply, subject: string): void {
  const type = mediaTypeOf(headers)
  if (type !== 'text/html' && type !== 'application/xhtml+xml') return
  body.cancel()
  throw new GatewayError(
    'UPSTREAM_INVALID',
    `${subject}: 200 with an HTML page; a login or a web filter may stand in between`,
  )
}

/** The whole body under a cap; a Content-Length above it is refused before a byte is read. */
export async function readWhole({ headers, body }: IncomingReply, maxBytes: number, subject: string): Promise<Buffer> {
  if ((lengthOf(headers) ?? 0) > maxBytes) {
    body.cancel()
    throw new GatewayError('UPSTREAM_INVALID', `${subject}: the body is longer than ${maxBytes} bytes`)
  }
  return body.readCapped(maxBytes, headers.get('content-encoding')?.trim().toLowerCase(), subject)
}

/** The tags of a page; `null` is how some registries write none. UPSTREAM_INVALID for anything else. */
export function parseTags(bytes: Buffer, subject: string): string[] {
  let page: unknown
  try {
    page = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw new GatewayError('UPSTREAM_INVALID', `${subject}: the body is not JSON`, { cause: error })
  }
  const tags: unknown = typeof page === 'object' && page !== null && 'tags' in page ? page.tags : undefined
  if (tags === null) return []
  if (!Array.isArray(tags)) throw new GatewayError('UPSTREAM_INVALID', `${subject}: the body holds no list of tags`)
  return tags.filter((tag: unknown): tag is string => typeof tag === 'string')
}
