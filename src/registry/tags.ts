/** `/v2/<name>/tags/list`: the upstream's pages with our links; what is known or held while it gives no answer. */
import type { NamespaceCache } from '../cache/namespace-cache.ts'
import type { Reply } from '../http/reply.ts'
import { jsonHeaders, nextLink, parsePage } from './headers.ts'
import type { RegistryRequest } from './request.ts'

export async function serveTags(cache: NamespaceCache, request: RegistryRequest<'tags'>): Promise<Reply> {
  const { query, path, route } = request
  const { n, last } = parsePage(query)
  const name = route.requestedName ?? path.repository
  // distribution-spec, "Listing Tags": n=0 is an empty list without a link, and no question to anybody.
  if (n === 0) return listReply({ name, tags: [] }, undefined, 'hit')
  const found = await cache.tagLists.list({
    repository: path.repository,
    query: upstreamQuery(query, n),
    limit: n,
    last,
    signal: request.signal,
  })
  const link =
    found.next === undefined ? undefined : nextLink(request.requestPath, query, new URLSearchParams(found.next))
  return listReply({ name, tags: found.tags }, link, found.outcome)
}

/** The query for the upstream: everything but `ns`, which is between the client and us; `n` as we cut it. */
function upstreamQuery(query: URLSearchParams, n: number | undefined): string {
  const asked = new URLSearchParams(query)
  asked.delete('ns')
  if (n !== undefined) asked.set('n', String(n))
  return asked.toString()
}

/** A JSON list with its link to the next page. */
export function listReply(list: object, link: string | undefined, outcome: Reply['outcome'] & string): Reply {
  const body = Buffer.from(JSON.stringify(list))
  const headers = jsonHeaders(body.length)
  if (link !== undefined) headers['link'] = link
  return { status: 200, headers, body, outcome }
}
