/** What one upstream is given when it is opened, and what it tells while it works. Types and defaults only. */
import type { LookupFunction } from 'node:net'
import type { Clock } from '../async/clock.ts'
import type { CredentialRule } from './credentials.ts'
import type { ProxyOptions } from './egress.ts'

/** `resolve`: may say what a tag means. `pull`: may give bytes by digest. containerd's words. */
export type Capability = 'resolve' | 'pull'

export interface EndpointOptions {
  /** Base address; `/v2` is appended unless a path of it already holds that segment. */
  readonly url: URL
  readonly capabilities: readonly Capability[]
}

/** Every bound on waiting, in milliseconds. */
export interface UpstreamTimeouts {
  /** TCP and TLS together. */
  readonly connectMs: number
  /** From the request to the head of a reply, for everything but blobs. */
  readonly headersMs: number
  /** The same for blobs: a registry may first fetch one from cold storage. */
  readonly blobHeadersMs: number
  /** Longest gap between two pieces of a body while we are reading it. */
  readonly gapMs: number
  /** A call that is no blob, as a whole: queue, login, redirects, retries and body. */
  readonly callMs: number
  /** Waiting for a free connection. */
  readonly queueMs: number
}

export const DEFAULT_TIMEOUTS: UpstreamTimeouts = {
  connectMs: 5_000,
  headersMs: 10_000,
  blobHeadersMs: 60_000,
  gapMs: 10_000,
  callMs: 60_000,
  queueMs: 30_000,
}

export type RequestKind = 'manifest' | 'blob' | 'tags' | 'referrers' | 'token' | 'ping'

/** What happened, for the log and the metrics. Never holds a credential, a token or a query string. */
export type UpstreamEvent =
  | {
      readonly type: 'request.done'
      readonly kind: RequestKind
      readonly method: string
      /** Host of the reply: the endpoint, or where a redirect led. */
      readonly host: string
      /** 0 when there was no reply at all. */
      readonly status: number
      /** Kind of the transport failure: dns, connect, tls, timeout, reset, protocol, proxy or refused. */
      readonly failure?: string
      readonly ms: number
      readonly bytes: number
    }
  | { readonly type: 'token.issued'; readonly realm: string; readonly scope: string; readonly expiresInMs: number }
  | {
      readonly type: 'credential.rejected'
      /** Which rule of the configuration, and the user name: no secret. */
      readonly credential: string
      readonly by: string
      readonly detail: string
    }
  | { readonly type: 'endpoint.opened'; readonly endpoint: string; readonly retryInMs: number }
  | { readonly type: 'endpoint.closed'; readonly endpoint: string }
  | { readonly type: 'throttled'; readonly endpoint: string; readonly retryAfterMs: number }

export interface UpstreamOptions {
  /** Name in messages: the upstream's key, such as `ghcr.io`. */
  readonly name: string
  readonly endpoints: readonly EndpointOptions[]
  /**
   * The operator did not write these endpoints but a pattern that a client's host name matched: they are dialled like any
   * redirect, at public or allowed addresses only, and are shown no client certificate. Default false.
   */
  readonly isPatternHost?: boolean
  /** Default `listed`. */
  readonly order?: 'listed' | 'fastest'
  readonly credentials?: readonly CredentialRule[]
  /** Token servers that may see our credentials: hosts, `host:port`, or URL prefixes. */
  readonly realms?: readonly string[]
  /** CIDRs that redirects and realms may reach although they are not public. */
  readonly allowPrivate?: readonly string[]
  readonly proxy?: ProxyOptions
  /** PEM texts, on top of the default roots and NODE_EXTRA_CA_CERTS. */
  readonly ca?: readonly string[]
  /** PEM texts; shown to the endpoints only, never to a redirect's target. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string }
  /** Most connections of each lane (manifests, blobs). Default 64. */
  readonly connections?: number
  /** Requests to the endpoints, queued above that. Default unlimited. */
  readonly requestsPerSecond?: number
  /** Bytes of blobs, all transfers together. Default unlimited. */
  readonly bytesPerSecond?: number
  readonly timeouts?: Partial<UpstreamTimeouts>
  /** Asks for tokens by POST first. Identity tokens always do. Default false. */
  readonly postTokens?: boolean
  /** Default `MAX_MANIFEST_BYTES`. */
  readonly maxManifestBytes?: number
  /** Part of `User-Agent: entrepot/<version>`. */
  readonly version?: string
  readonly clock?: Clock
  /** Uniform in [0, 1): jitter. */
  readonly random?: () => number
  readonly lookup?: LookupFunction
  readonly onEvent?: (event: UpstreamEvent) => void
  /**
   * Told of every secret before it is used: passwords as files and helpers give them, what Basic makes of them, tokens of
   * all kinds. For a redactor, and for nothing else.
   */
  readonly onSecret?: (secret: string) => void
}
