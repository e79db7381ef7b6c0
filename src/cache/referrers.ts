/**
 * Referrers of one namespace: the upstream's API where it has one, else the tag scheme behind it, and what is known or
 * held while the upstream gives no answer. Signatures are pushed after images, so nothing here is trusted for long.
 */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { codeOf, GatewayError, isNonAnswer } from '../errors.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { parseManifest, type Manifest } from '../oci/manifest.ts'
import { OCI_INDEX } from '../oci/media-types.ts'
import { referrersTag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Upstream } from '../upstream/upstream.ts'
import { REFERRERS_TTL_MS } from './freshness.ts'
import type { ManifestCache } from './manifest-cache.ts'

export interface ReferrersCacheOptions {
  readonly namespace: string
  readonly upstream: Upstream
  readonly ledger: Ledger
  readonly manifests: ManifestCache
  readonly clock: Clock
  readonly isOffline: boolean
}

export interface ReferrersRequest {
  readonly repository: Repository
  readonly digest: Digest
  readonly artifactType: string | undefined
  /** The page asked for, as a former page's `next` gave it; empty for the first. */
  readonly query: string
  readonly signal: AbortSignal
}

export interface FoundReferrers {
  /** An OCI index. */
  readonly bytes: Uint8Array
  readonly isFiltered: boolean
  readonly next: string | undefined
  readonly outcome: 'hit' | 'miss' | 'stale'
}

type Page = Omit<FoundReferrers, 'outcome'>

const MAX_CACHED_BYTES = 16 * 1024 * 1024

export class ReferrersCache {
  readonly #options: ReferrersCacheOptions
  readonly #pages = new LRUCache<string, { readonly page: Page; readonly at: number }>({
    maxSize: MAX_CACHED_BYTES,
    sizeCalculation: ({ page }, key) => page.bytes.length + key.length + 128,
  })
  readonly #flights = new SingleFlight<Page>()

  constructor(options: ReferrersCacheOptions) {
    this.#options = options
  }

  async find(request: ReferrersRequest): Promise<FoundReferrers> {
    const { clock, isOffline } = this.#options
    const key = `${request.repository}@${request.digest}?${request.artifactType ?? ''}&${request.query}`
    const cached = this.#pages.get(key)
    if (cached !== undefined && clock.now() - cached.at < REFERRERS_TTL_MS) return { ...cached.page, outcome: 'hit' }
    try {
      if (isOffline)
        throw new GatewayError('OFFLINE', `${this.#options.namespace}: referrers are not asked while offline`)
      const page = await this.#flights.join(key, request.signal, (shared) => this.#ask({ ...request, signal: shared }))
      this.#pages.set(key, { page, at: clock.now() })
      return { ...page, outcome: 'miss' }
    } catch (error) {
      if (request.signal.aborted || !isNonAnswer(error)) throw error
      const held = cached?.page ?? (await this.#fromHeld(request))
      if (held === undefined) throw error
      return { ...held, outcome: 'stale' }
    }
  }

  async #ask(request: ReferrersRequest): Promise<Page> {
    const { upstream } = this.#options
    const { repository, digest, artifactType, query, signal } = request
    const first = artifactType === undefined ? '' : new URLSearchParams({ artifactType }).toString()
    const answer = await upstream.listReferrers(repository, digest, query === '' ? first : query, { signal })
    if (answer === undefined) return this.#byTagScheme(request)
    const isFiltered = answer.filtersApplied?.split(',').some((name) => name.trim() === 'artifactType') ?? false
    if (artifactType === undefined || isFiltered) return { bytes: answer.bytes, isFiltered, next: answer.next }
    const index = parseManifest(answer.bytes)
    if (index?.kind !== 'index')
      throw new GatewayError('UPSTREAM_INVALID', `referrers of ${repository}@${digest}: no index came`)
    return { ...filtered(index.manifests, artifactType), next: answer.next }
  }

  /** distribution-spec, "Referrers Tag Schema": an index under a tag made of the digest; no tag means no referrers. */
  async #byTagScheme({ repository, digest, artifactType, signal }: ReferrersRequest): Promise<Page> {
    try {
      const { manifest } = await this.#options.manifests.find({ repository, reference: referrersTag(digest), signal })
      const index = parseManifest(manifest.bytes)
      return { ...filtered(index?.kind === 'index' ? index.manifests : [], artifactType), next: undefined }
    } catch (error) {
      const code = codeOf(error)
      if (code !== 'MANIFEST_UNKNOWN' && code !== 'NAME_UNKNOWN') throw error
      return { ...filtered([], artifactType), next: undefined }
    }
  }

  /** Without an upstream: the manifests held here that name `digest` as their subject. Undefined when there are none. */
  async #fromHeld({ repository, digest, artifactType, query }: ReferrersRequest): Promise<Page | undefined> {
    const { ledger, manifests, namespace } = this.#options
    // A further page of a list that only the upstream knows cannot be made from a whole one of ours.
    if (query !== '') return undefined
    const parents = await ledger.readParents(namespace, repository, digest)
    const descriptors: Descriptor[] = []
    for (const { parent } of parents.filter(({ role }) => role === 'subject')) {
      const manifest = await manifests.findHeld(repository, parent)
      if (manifest !== undefined) descriptors.push(describe(manifest))
    }
    return descriptors.length === 0 ? undefined : { ...filtered(descriptors, artifactType), next: undefined }
  }
}

/** The descriptor a referrers index holds for a manifest: its artifactType is the config's type where it names none. */
function describe(manifest: Manifest): Descriptor {
  const parsed = parseManifest(manifest.bytes)
  const own = parsed === undefined || parsed.kind === 'schema1' ? undefined : parsed
  const artifactType = own?.artifactType ?? (own?.kind === 'image' ? own.config?.mediaType : undefined)
  return {
    mediaType: manifest.mediaType,
    digest: manifest.digest,
    size: manifest.bytes.length,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(own?.annotations === undefined ? {} : { annotations: own.annotations }),
  }
}

function filtered(
  all: readonly Descriptor[],
  artifactType: string | undefined,
): { bytes: Uint8Array; isFiltered: boolean } {
  const manifests =
    artifactType === undefined ? all : all.filter((descriptor) => descriptor.artifactType === artifactType)
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests }
  return { bytes: Buffer.from(JSON.stringify(index)), isFiltered: artifactType !== undefined }
}
