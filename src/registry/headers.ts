/** Headers of the registry API: written from an allow-list of our own, never copied from an upstream. Pure. */
import { GatewayError } from '../errors.ts'
import type { Outcome } from '../http/reply.ts'
import type { Digest } from '../oci/digest.ts'
import type { Manifest } from '../oci/manifest.ts'

type Headers = Record<string, string>

/** On every answer below `/v2`: the marker old clients look for, and no guessing of types by browsers. */
export const REGISTRY_HEADERS: Readonly<Headers> = {
  'docker-distribution-api-version': 'registry/2.0',
  'x-content-type-options': 'nosniff',
}

/** A digest is a strong validator: it names the bytes. */
export function etagOf(digest: Digest): string {
  return `"${digest}"`
}

/**
 * Whether `If-None-Match` names what we hold, so that 304 is the answer. Takes a list, `*`, weak tags, and the bare digest
 * that some clients send. Rule: RFC 9110 section 13.1.2 (weak comparison).
 */
export function matchesEtag(ifNoneMatch: string | undefined, digest: Digest): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch.split(',').some((entry) => {
    const tag = entry.trim()
    return tag === '*' || tag.replace(/^W\//, '').replace(/^"(.*)"$/, '$1') === digest
  })
}

/** Headers of a manifest, the same for GET and HEAD. By tag the answer may be another one soon, so nobody may keep it. */
export function manifestHeaders(manifest: Manifest, options: { readonly byDigest: boolean }): Headers {
  return {
    ...REGISTRY_HEADERS,
    'content-type': manifest.mediaType,
    'content-length': String(manifest.bytes.length),
    'docker-content-digest': manifest.digest,
    etag: etagOf(manifest.digest),
    'cache-control': options.byDigest ? 'max-age=31536000, immutable' : 'no-cache',
  }
}

export const BLOB_TYPE = 'application/octet-stream'

/** Headers of a whole blob, the same for GET and HEAD; a partial answer replaces `content-length`. */
export function blobHeaders(blob: { readonly digest: Digest; readonly size: number }): Headers {
  return {
    ...REGISTRY_HEADERS,
    'content-type': BLOB_TYPE,
    'content-length': String(blob.size),
    'docker-content-digest': blob.digest,
    etag: etagOf(blob.digest),
    'accept-ranges': 'bytes',
    'cache-control': 'max-age=31536000, immutable',
  }
}

/** Headers of a JSON answer of `length` bytes. */
export function jsonHeaders(length: number, contentType = 'application/json'): Headers {
  return { ...REGISTRY_HEADERS, 'content-type': contentType, 'content-length': String(length) }
}

/** Headers of a 304: the validators and no body (RFC 9110 section 15.4.5). */
export function notModifiedHeaders(whole: Readonly<Headers>): Headers {
  const kept = [
    'docker-distribution-api-version',
    'x-content-type-options',
    'docker-content-digest',
    'etag',
    'cache-control',
  ]
  return Object.fromEntries(kept.flatMap((name) => (whole[name] === undefined ? [] : [[name, whole[name]]])))
}

const CACHE_NAME = 'entrepot'
// RFC 9211: `hit` and `fwd` exclude each other; a stale answer given without an answer of the upstream is a hit.
const CACHE_STATUS: Readonly<Record<Outcome, string>> = {
  hit: 'hit',
  stale: 'hit; detail=stale',
  negative: 'hit; detail=negative',
  revalidated: 'fwd=stale',
  miss: 'fwd=miss',
  joined: 'fwd=miss; collapsed',
  bypass: 'fwd=bypass',
}

/** Value of `Cache-Status` (RFC 9211). Holds no key, host or address. */
export function cacheStatus(outcome: Outcome): string {
  return `${CACHE_NAME}; ${CACHE_STATUS[outcome]}`
}

/** How many entries of a list a client asks for, and after which. */
export interface Page {
  /** 0 to 1,000; undefined when the client named no number. */
  readonly n: number | undefined
  readonly last: string | undefined
}

/** Larger pages are cut to this: a list is sized by us, not by the client. */
export const MAX_PAGE_SIZE = 1000
const MAX_LAST_LENGTH = 512

/** Reads `n` and `last`. Throws PAGINATION_INVALID for an `n` that is no natural number, or given twice. */
export function parsePage(query: URLSearchParams): Page {
  const [n, ...more] = query.getAll('n')
  if (more.length > 0 || (n !== undefined && !/^\d{1,15}$/.test(n))) {
    throw new GatewayError('PAGINATION_INVALID', 'n is a number of entries, 0 or more, given once')
  }
  const last = query.get('last') ?? undefined
  if (last !== undefined && last.length > MAX_LAST_LENGTH) {
    throw new GatewayError('PAGINATION_INVALID', `last is longer than ${MAX_LAST_LENGTH} characters`)
  }
  return { n: n === undefined ? undefined : Math.min(Number(n), MAX_PAGE_SIZE), last: last === '' ? undefined : last }
}

/**
 * `Link` to the next page: the path as it was requested, so that every prefix stays, and its query with `next` set over it,
 * so that `ns` and parameters we do not know stay. Relative, because we may not know the name we are reached by.
 */
export function nextLink(requestPath: string, query: URLSearchParams, next: URLSearchParams): string {
  const merged = new URLSearchParams(query)
  for (const key of new Set(next.keys())) {
    // `ns` is between the client and us; an upstream's own is none of its business.
    if (key === 'ns') continue
    merged.delete(key)
    for (const value of next.getAll(key)) merged.append(key, value)
  }
  return `<${requestPath}?${merged.toString()}>; rel="next"`
}
