/** Names of what is held, as typed on the command line: the upstream first, then the path a client would pull. Pure. */
import { GatewayError } from '../errors.ts'
import type { PurgeSelector } from '../keeping/operator.ts'

const HUB = 'docker.io'

/**
 * Parses `UPSTREAM[/REPOSITORY[:TAG|@DIGEST]]`. Docker Hub's official images may leave out `library/`, as everywhere.
 * Throws BAD_REQUEST for what is none of it.
 */
export function parseImageName(text: string): PurgeSelector {
  const slash = text.indexOf('/')
  if (slash === -1) return { upstream: text }
  const upstream = text.slice(0, slash)
  const rest = text.slice(slash + 1)
  const at = rest.indexOf('@')
  const colon = rest.lastIndexOf(':')
  const digest = at === -1 ? undefined : rest.slice(at + 1)
  const tag = at === -1 && colon > rest.lastIndexOf('/') ? rest.slice(colon + 1) : undefined
  const path = rest.slice(0, at === -1 ? (tag === undefined ? rest.length : colon) : at).replace(/:[^/]*$/, '')
  if (upstream === '' || path === '' || tag === '' || digest === '') {
    throw new GatewayError('BAD_REQUEST', `${text}: write UPSTREAM/REPOSITORY, with :TAG or @DIGEST behind it or not`)
  }
  return {
    upstream,
    repository: withLibrary(upstream, path),
    ...(tag !== undefined && { tag }),
    ...(digest !== undefined && { digest }),
  }
}

/** Parses `UPSTREAM/PATTERN` of images: what stands behind the first slash is matched as it is. */
export function parsePinName(text: string): { readonly upstream: string; readonly pattern: string } {
  const slash = text.indexOf('/')
  const upstream = text.slice(0, Math.max(0, slash))
  const pattern = text.slice(slash + 1)
  if (upstream === '' || pattern === '') {
    throw new GatewayError('BAD_REQUEST', `${text}: write UPSTREAM/REPOSITORY:TAG; * and ** stand for any name`)
  }
  return { upstream, pattern: withLibrary(upstream, pattern) }
}

function withLibrary(upstream: string, path: string): string {
  // A star as the name may mean anything; behind a name it is a part of the tag.
  return upstream === HUB && !path.includes('/') && !path.startsWith('*') ? `library/${path}` : path
}
