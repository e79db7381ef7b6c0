/** What a registry handler is given, and the handlers themselves: values in, a `Reply` out. */
import type { Reply } from '../http/reply.ts'
import type { Route } from '../routing/route.ts'
import type { RegistryPath } from './path.ts'

/** The request headers that an answer may depend on. */
export interface RequestHeaders {
  readonly accept: string | undefined
  readonly range: string | undefined
  readonly ifRange: string | undefined
  readonly ifNoneMatch: string | undefined
}

interface RequestFacts {
  readonly method: 'GET' | 'HEAD'
  /** The path as it came, with every prefix and without query: what a `Link` to a further page is made of. */
  readonly requestPath: string
  readonly query: URLSearchParams
  readonly headers: RequestHeaders
  /** Aborts when the client is gone. It ends this client's wait, not work that others share. */
  readonly signal: AbortSignal
  readonly requestId: string
}

export type PathOf<K extends RegistryPath['kind']> = Extract<RegistryPath, { readonly kind: K }>

export interface RegistryRequest<K extends RegistryPath['kind']> extends RequestFacts {
  readonly route: Route
  readonly path: PathOf<K>
}

export interface CatalogRequest extends RequestFacts {
  /** Undefined at an address that names no upstream and has no default: all of them, prefixed. */
  readonly route: Route | undefined
  /** Whether the client may use an upstream, by its name in the configuration. */
  readonly mayUse: (upstream: string) => boolean
}

/** Each rejects with a `GatewayError`, which becomes the error reply. On HEAD the body of a reply is not sent. */
export interface RegistryHandlers {
  manifest(request: RegistryRequest<'manifest'>): Promise<Reply>
  blob(request: RegistryRequest<'blob'>): Promise<Reply>
  tags(request: RegistryRequest<'tags'>): Promise<Reply>
  referrers(request: RegistryRequest<'referrers'>): Promise<Reply>
  catalog(request: CatalogRequest): Promise<Reply>
}
