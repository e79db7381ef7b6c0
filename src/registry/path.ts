/**
 * The `/v2` path, parsed once from its raw text: nothing here is decoded, because the alphabet of names, tags and digests
 * needs no encoding, and a second decoder is how other proxies were walked out of their folders. Pure.
 */
import { parseDigest, type Digest } from '../oci/digest.ts'
import { parseTag, type Reference } from '../oci/reference.ts'
import { parseRepository, type Repository } from '../oci/repository.ts'

export type RegistryPath =
  | { readonly kind: 'ping' }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'manifest'; readonly repository: Repository; readonly reference: Reference }
  | { readonly kind: 'blob'; readonly repository: Repository; readonly digest: Digest }
  | { readonly kind: 'tags'; readonly repository: Repository }
  | { readonly kind: 'referrers'; readonly repository: Repository; readonly digest: Digest }

export interface PathProblem {
  readonly kind: 'problem'
  readonly code: 'NAME_INVALID' | 'DIGEST_INVALID' | 'MANIFEST_UNKNOWN' | 'ENDPOINT_UNKNOWN'
  /** Safe to show to the client. */
  readonly message: string
}

/** Longest path that can be valid: a name of 255, the endpoint, a sha512 digest. */
const MAX_PATH_LENGTH = 255 + '/referrers/'.length + 'sha512:'.length + 128
// Letters, digits and separators of the grammar (spec.md, "Pulling manifests"); `+` and `=` occur in digest algorithms.
const ALPHABET = /^[A-Za-z0-9._:/+=-]*$/

/**
 * Parses what follows `/v2/`. The endpoint is looked for from the right, since `a/manifests/b` is a legal name. A tag that
 * cannot exist is an unknown manifest, not a bad request: the conformance suite asks for one and wants 404.
 */
export function parseRegistryPath(rest: string): RegistryPath | PathProblem {
  if (rest === '') return { kind: 'ping' }
  if (rest === '_catalog') return { kind: 'catalog' }
  if (rest.length > MAX_PATH_LENGTH) return problem('NAME_INVALID', 'the path is longer than any name and reference')
  if (!ALPHABET.test(rest)) return isBeforeDigest(rest) ? invalidDigest() : invalidCharacter()
  const segments = rest.split('/')
  if (segments.slice(0, -1).includes('') || segments.includes('..') || segments.includes('.')) {
    return problem('NAME_INVALID', 'the path holds an empty or relative component')
  }
  const reference = segments.at(-1) ?? ''
  const endpoint = segments.at(-2)
  if (!isEndpoint(endpoint) || reference === '' || (endpoint === 'tags' && reference !== 'list')) {
    return problem('ENDPOINT_UNKNOWN', 'this gateway serves manifests, blobs, tags/list and referrers')
  }
  const repository = parseRepository(segments.slice(0, -2).join('/'))
  if (repository === undefined) return problem('NAME_INVALID', 'the repository name does not fit the grammar')
  if (endpoint === 'tags') return { kind: 'tags', repository }
  if (endpoint === 'manifests') return manifestPath(repository, reference)
  const digest = parseDigest(reference)
  if (digest === undefined) return invalidDigest()
  return { kind: endpoint === 'blobs' ? 'blob' : 'referrers', repository, digest }
}

/** Whether all that is wrong is the last component, where a digest should be: then that is what the client is told. */
function isBeforeDigest(rest: string): boolean {
  const [, name] = /^(.+)\/(?:blobs|referrers)\/[^/]*$/.exec(rest) ?? []
  return name !== undefined && parseRepository(name) !== undefined
}

function manifestPath(repository: Repository, text: string): RegistryPath | PathProblem {
  const reference = text.includes(':') ? parseDigest(text) : parseTag(text)
  if (reference !== undefined) return { kind: 'manifest', repository, reference }
  return text.includes(':') ? invalidDigest() : problem('MANIFEST_UNKNOWN', 'no manifest can have this tag')
}

type Endpoint = 'manifests' | 'blobs' | 'tags' | 'referrers'

function isEndpoint(segment: string | undefined): segment is Endpoint {
  return segment === 'manifests' || segment === 'blobs' || segment === 'tags' || segment === 'referrers'
}

function invalidCharacter(): PathProblem {
  return problem('NAME_INVALID', 'the path holds a character that no name or reference has')
}

function invalidDigest(): PathProblem {
  return problem('DIGEST_INVALID', 'a digest is sha256: and 64, or sha512: and 128 lower-case hexadecimal digits')
}

function problem(code: PathProblem['code'], message: string): PathProblem {
  return { kind: 'problem', code, message }
}
