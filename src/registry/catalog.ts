/** `/v2/_catalog`: what is held and can be pulled at this address, in pages. Never asks an upstream. */
import type { Reply } from '../http/reply.ts'
import type { Repository } from '../oci/repository.ts'
import { MAX_PAGE_SIZE, nextLink, parsePage } from './headers.ts'
import type { CatalogRequest } from './request.ts'
import { listReply } from './tags.ts'

/** One upstream's part of a catalog. */
export interface CatalogPart {
  /** Put before each name, with a slash; empty for the upstream that the address itself names. */
  readonly prefix: string
  readonly isAllowed: (repository: Repository) => boolean
  readonly list: (options: { readonly last?: string; readonly limit: number }) => Promise<Repository[]>
}

/** Lists the parts together, in lexical order of the names as they are pulled. */
export async function serveCatalog(parts: readonly CatalogPart[], request: CatalogRequest): Promise<Reply> {
  const { n = MAX_PAGE_SIZE, last } = parsePage(request.query)
  if (n === 0) return listReply({ repositories: [] }, undefined, 'hit')
  const pages = await Promise.all(parts.map((part) => listPart(part, last, n + 1)))
  const names = [...new Set(pages.flat())].sort()
  const repositories = names.slice(0, n)
  const final = repositories.at(-1)
  const hasMore = names.length > repositories.length && final !== undefined
  const next = hasMore ? new URLSearchParams({ last: final, n: String(n) }) : undefined
  const link = next && nextLink(request.requestPath, request.query, next)
  return listReply({ repositories }, link, 'hit')
}

async function listPart(part: CatalogPart, last: string | undefined, limit: number): Promise<string[]> {
  const start = part.prefix === '' ? '' : `${part.prefix}/`
  const names: string[] = []
  let after = last === undefined ? undefined : lastWithin(start, last)
  if (after === 'all of it') return []
  while (names.length < limit) {
    const page = await part.list(after === undefined ? { limit } : { last: after, limit })
    names.push(...page.filter(part.isAllowed).map((repository) => start + repository))
    after = page.at(-1)
    if (after === undefined || page.length < limit) break
  }
  return names.slice(0, limit)
}

/** Where to go on within a part, given the last name of the whole list. */
function lastWithin(start: string, last: string): string | undefined {
  if (last.startsWith(start)) return last.slice(start.length)
  return last < start ? undefined : 'all of it'
}
