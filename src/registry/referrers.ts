/** `/v2/<name>/referrers/<digest>`: an index of what refers to a manifest, filtered here where the upstream does not. */
import type { NamespaceCache } from '../cache/namespace-cache.ts'
import type { Reply } from '../http/reply.ts'
import { OCI_INDEX } from '../oci/media-types.ts'
import { jsonHeaders, nextLink } from './headers.ts'
import type { RegistryRequest } from './request.ts'

const OURS: readonly string[] = ['ns', 'artifactType']

export async function serveReferrers(cache: NamespaceCache, request: RegistryRequest<'referrers'>): Promise<Reply> {
  const { query, path, signal } = request
  const artifactType = query.get('artifactType') ?? undefined
  const paging = new URLSearchParams([...query].filter(([key]) => !OURS.includes(key)))
  const isFirst = paging.size === 0
  if (!isFirst && artifactType !== undefined) paging.set('artifactType', artifactType)
  const found = await cache.referrers.find({ ...path, artifactType, query: isFirst ? '' : paging.toString(), signal })
  const headers = jsonHeaders(found.bytes.length, OCI_INDEX)
  if (found.isFiltered) headers['oci-filters-applied'] = 'artifactType'
  if (found.next !== undefined) headers['link'] = nextLink(request.requestPath, query, new URLSearchParams(found.next))
  return { status: 200, headers, body: found.bytes, outcome: found.outcome }
}
