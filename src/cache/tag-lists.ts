/** Tag lists of one namespace: asked of the upstream page by page; what is known or held while it gives no answer. */
import { LRUCache } from 'lru-cache'
import { SingleFlight } from '../async/single-flight.ts'
import { GatewayError, isNonAnswer } from '../errors.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { TagPage, Upstream } from '../upstream/upstream.ts'

export interface TagListsOptions {
  readonly namespace: string
  readonly upstream: Upstream
  readonly store: Store
  readonly isOffline: boolean
}

export interface TagListRequest {
  readonly repository: Repository
  /** The client's query as it came, less what belongs to us: an upstream's own paging parameters are opaque. */
  readonly query: string
  /** At most so many tags; undefined: as many as there are. */
  readonly limit: number | undefined
  /** Only tags after this one. */
  readonly last: string | undefined
  readonly signal: AbortSignal
}

export interface FoundTags {
  readonly tags: readonly string[]
  /** Query string of the next page. */
  readonly next: string | undefined
  readonly outcome: 'miss' | 'stale'
}

const MAX_CACHED_BYTES = 16 * 1024 * 1024

export class TagLists {
  readonly #options: TagListsOptions
  readonly #pages = new LRUCache<string, TagPage>({
    maxSize: MAX_CACHED_BYTES,
    sizeCalculation: ({ tags }, key) => tags.reduce((sum, tag) => sum + tag.length + 16, key.length + 64),
  })
  readonly #flights = new SingleFlight<TagPage>()

  constructor(options: TagListsOptions) {
    this.#options = options
  }

  async list(request: TagListRequest): Promise<FoundTags> {
    const { upstream, isOffline, namespace } = this.#options
    const { repository, query, signal } = request
    const key = `${repository}?${query}`
    try {
      if (isOffline) throw new GatewayError('OFFLINE', `${namespace}: tags are not asked while offline`)
      const page = await this.#flights.join(key, signal, (shared) =>
        upstream.listTags(repository, query, { signal: shared }),
      )
      this.#pages.set(key, page)
      return { ...page, outcome: 'miss' }
    } catch (error) {
      if (signal.aborted || !isNonAnswer(error)) throw error
      const page = this.#pages.get(key) ?? (await this.#fromHeld(request))
      if (page === undefined) throw error
      return { ...page, outcome: 'stale' }
    }
  }

  /** The tags that are held here; undefined when there are none, which says nothing about the upstream. */
  async #fromHeld({ repository, limit, last }: TagListRequest): Promise<TagPage | undefined> {
    const held = await this.#options.store.listTags(repository)
    if (held.length === 0) return undefined
    const after = last === undefined ? held : held.filter((tag) => tag > last)
    const tags = limit === undefined ? after : after.slice(0, limit)
    const final = tags.at(-1)
    const hasMore = tags.length < after.length && final !== undefined
    return { tags, next: hasMore ? new URLSearchParams({ last: final, n: String(limit) }).toString() : undefined }
  }
}
