/** `/v2/<name>/manifests/<reference>`: bytes as they came, with the type they came with. */
import type { NamespaceCache } from '../cache/namespace-cache.ts'
import type { Reply } from '../http/reply.ts'
import { isDigest } from '../oci/reference.ts'
import { manifestHeaders, matchesEtag, notModifiedHeaders } from './headers.ts'
import type { RegistryRequest } from './request.ts'

/** A range is ignored: manifests are small and clients that ask one for `bytes=0-` take 200. */
export async function serveManifest(cache: NamespaceCache, request: RegistryRequest<'manifest'>): Promise<Reply> {
  const { repository, reference } = request.path
  const { manifest, outcome } = await cache.manifests.find({ repository, reference, signal: request.signal })
  cache.touch(repository, manifest.digest, request.method === 'GET' ? 'get' : 'head')
  const headers = manifestHeaders(manifest, { byDigest: isDigest(reference) })
  if (matchesEtag(request.headers.ifNoneMatch, manifest.digest)) {
    return { status: 304, headers: notModifiedHeaders(headers), body: undefined, outcome }
  }
  return { status: 200, headers, body: manifest.bytes, outcome }
}
