/** The handlers of the registry API, each given the cache of the upstream that the route names. */
import type { NamespaceCache } from '../cache/namespace-cache.ts'
import type { Route } from '../routing/route.ts'
import { serveBlob } from './blobs.ts'
import { serveCatalog, type CatalogPart } from './catalog.ts'
import { serveManifest } from './manifests.ts'
import { serveReferrers } from './referrers.ts'
import type { RegistryPath } from './path.ts'
import type { CatalogRequest, RegistryHandlers } from './request.ts'
import { serveTags } from './tags.ts'

export interface HandlersOptions {
  /** The cache behind a route. Rejects where a pattern's host has no place. */
  readonly cacheOf: (route: Route, kind: RegistryPath['kind']) => Promise<NamespaceCache>
  /** What the catalog of an address is made of; undefined: an address that names no upstream. */
  readonly catalogOf: (request: Pick<CatalogRequest, 'route' | 'mayUse'>) => readonly CatalogPart[]
}

export function createHandlers({ cacheOf, catalogOf }: HandlersOptions): RegistryHandlers {
  return {
    manifest: async (request) => serveManifest(await cacheOf(request.route, request.path.kind), request),
    blob: async (request) => serveBlob(await cacheOf(request.route, request.path.kind), request),
    tags: async (request) => serveTags(await cacheOf(request.route, request.path.kind), request),
    referrers: async (request) => serveReferrers(await cacheOf(request.route, request.path.kind), request),
    catalog: (request) => serveCatalog(catalogOf(request), request),
  }
}
