/**
 * One request over one connection: pools, TLS, egress proxies, timeouts and the guarded dialer. The only file that knows
 * undici. Knows nothing of registries: no retry, no redirect, no credential of its own.
 */
import { isIP, type LookupFunction } from 'node:net'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { Agent, buildConnector, ProxyAgent, type Dispatcher } from 'undici'
import { GatewayError } from '../errors.ts'
import { ReplyBody } from './body.ts'
import { DialGuard } from './dialer.ts'
import { proxyFor, type ProxyOptions } from './egress.ts'
import { Lane } from './lane.ts'
import type { RequestKind, UpstreamEvent, UpstreamTimeouts } from './options.ts'
import { Pace } from './pace.ts'
import { TransportError } from './transport-error.ts'

export interface TransportOptions {
  readonly name: string
  readonly endpointOrigins: readonly string[]
  /** Whether the operator wrote them: then they are dialled whatever their address is, and shown the client certificate. */
  readonly areDeclared: boolean
  readonly allowPrivate: readonly string[]
  readonly proxy: ProxyOptions
  readonly ca: readonly string[]
  readonly clientCertificate: { readonly cert: string; readonly key: string } | undefined
  readonly connections: number
  /** Infinity: unlimited. */
  readonly requestsPerSecond: number
  readonly bytesPerSecond: number
  readonly timeouts: UpstreamTimeouts
  readonly lookup: LookupFunction | undefined
  readonly onEvent: (event: UpstreamEvent) => void
}

export interface OutgoingRequest {
  readonly kind: RequestKind
  readonly method: 'GET' | 'HEAD' | 'POST'
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  readonly signal: AbortSignal
  readonly priority?: 'client' | 'background' | undefined
}

export interface IncomingReply {
  readonly status: number
  readonly headers: ReplyHeaders
  readonly body: ReplyBody
}

/** Reply headers by lower-case name, single or repeated. */
export class ReplyHeaders {
  readonly #headers: Readonly<Record<string, string | string[] | undefined>>

  constructor(headers: Readonly<Record<string, string | string[] | undefined>>) {
    this.#headers = headers
  }

  /** The first value. */
  get(name: string): string | undefined {
    return this.getAll(name)[0]
  }

  getAll(name: string): readonly string[] {
    if (!Object.hasOwn(this.#headers, name)) return []
    const value = this.#headers[name]
    return value === undefined ? [] : typeof value === 'string' ? [value] : value
  }
}

type LaneName = 'manifests' | 'blobs' | 'tokens'

// Replies carry signed URLs of several KB; undici's own limit of 16 KiB is for both together.
const MAX_HEADER_BYTES = 32 * 1024
const TOKEN_CONNECTIONS = 8
const QUEUE_PER_CONNECTION = 16

export class Transport {
  readonly #options: TransportOptions
  readonly #endpoints: ReadonlySet<string>
  readonly #own: ReadonlySet<string>
  readonly #guard: DialGuard
  readonly #requestPace: Pace | undefined
  readonly #bytePace: Pace | undefined
  #ownContext: SecureContext | undefined
  #foreignContext: SecureContext | undefined
  readonly #lanes: Readonly<Record<LaneName, Lane>>
  /** At most three lanes, own and foreign, direct and two proxies. */
  readonly #dispatchers = new Map<string, Dispatcher>()

  constructor(options: TransportOptions) {
    this.#options = options
    this.#endpoints = new Set(options.endpointOrigins)
    this.#own = options.areDeclared ? this.#endpoints : new Set()
    this.#guard = new DialGuard({ allowPrivate: options.allowPrivate, lookup: options.lookup })
    const { name, requestsPerSecond, bytesPerSecond, timeouts } = options
    if (Number.isFinite(requestsPerSecond)) {
      this.#requestPace = new Pace({ name, perSecond: requestsPerSecond, maxWaitMs: timeouts.queueMs })
    }
    if (Number.isFinite(bytesPerSecond)) this.#bytePace = new Pace({ name, perSecond: bytesPerSecond })
    const lane = (name: LaneName): Lane => {
      const slots = connectionsOf(name, options.connections)
      const queueMs = options.timeouts.queueMs
      return new Lane({ name: `${options.name} ${name}`, slots, queueLength: slots * QUEUE_PER_CONNECTION, queueMs })
    }
    this.#lanes = { manifests: lane('manifests'), blobs: lane('blobs'), tokens: lane('tokens') }
  }

  /** What connections to the endpoints are checked against and show. Made once: reading all roots takes milliseconds. */
  get secureContext(): SecureContext {
    this.#ownContext ??= createSecureContext({ ...this.#roots(), ...this.#options.clientCertificate })
    return this.#ownContext
  }

  /** The resolver a socket to `url` must use. Throws ADDRESS_REFUSED when the host can be seen to be none we dial. */
  lookupFor(url: URL): LookupFunction {
    if (this.#own.has(url.origin)) return this.#guard.openLookup
    this.#guard.checkHost(url.hostname)
    return this.#guard.guardedLookup
  }

  /** The proxy `url` is reached through, if any. */
  proxyOf(url: URL): string | undefined {
    return proxyFor(url, this.#options.proxy)
  }

  /**
   * Sends one request and gives its reply, whatever the status; a redirect is only a reply. The body must be read to its
   * end, discarded or cancelled. Rejects with `TransportError`, ADDRESS_REFUSED, OVERLOADED, or the signal's reason.
   */
  async send(request: OutgoingRequest): Promise<IncomingReply> {
    const { signal, priority = 'client' } = request
    const laneName = laneOf(request.kind)
    const leave = await this.#lanes[laneName].enter({ signal, priority })
    let startedAt = performance.now()
    const done = (status: number, bytes: number, failure?: string): void => {
      const ms = Math.round(performance.now() - startedAt)
      const { kind, method, url } = request
      const told = { type: 'request.done', kind, method, host: url.host, status, ms, bytes } as const
      this.#options.onEvent(failure === undefined ? told : { ...told, failure })
    }
    try {
      if (laneName !== 'tokens' && this.#endpoints.has(request.url.origin)) {
        await this.#requestPace?.take(1, signal)
        startedAt = performance.now()
      }
      const reply = await this.#dispatch(request, laneName)
      const { body: stream, statusCode: status, headers } = reply
      const onClose = (bytes: number): void => {
        leave()
        done(status, bytes)
      }
      return {
        status,
        headers: new ReplyHeaders(headers),
        body: new ReplyBody({ stream, signal, pace: laneName === 'blobs' ? this.#bytePace : undefined, onClose }),
      }
    } catch (error) {
      leave()
      if (signal.aborted) throw signal.reason
      const failure = error instanceof GatewayError ? error : TransportError.from(error)
      done(0, 0, failure instanceof GatewayError ? 'refused' : failure.kind)
      throw failure
    }
  }

  /** Closes every connection at once; transfers under way fail. */
  async close(): Promise<void> {
    await Promise.all([...this.#dispatchers.values()].map((dispatcher) => dispatcher.destroy()))
  }

  #dispatch(
    { kind, method, url, headers, body, signal }: OutgoingRequest,
    lane: LaneName,
  ): Promise<Dispatcher.ResponseData> {
    const { headersMs, blobHeadersMs, gapMs } = this.#options.timeouts
    return this.#dispatcherFor(url, lane).request({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method,
      headers: { ...headers },
      body: body ?? null,
      signal,
      headersTimeout: kind === 'blob' ? blobHeadersMs : headersMs,
      bodyTimeout: gapMs,
      // undici closes after each HEAD unless told not to: a handshake for every tag check. It drops a connection on which
      // a body follows a HEAD all the same.
      reset: false,
    })
  }

  #dispatcherFor(url: URL, lane: LaneName): Dispatcher {
    const isOwn = this.#own.has(url.origin)
    if (!isOwn) this.#guard.checkHost(url.hostname)
    const proxy = this.proxyOf(url)
    const key = `${lane} ${isOwn ? 'own' : 'foreign'} ${proxy ?? ''}`
    const held = this.#dispatchers.get(key)
    if (held !== undefined) return held
    const made = proxy === undefined ? this.#openAgent(lane, isOwn) : this.#openProxyAgent(lane, isOwn, proxy)
    this.#dispatchers.set(key, made)
    return made
  }

  #openAgent(lane: LaneName, isOwn: boolean): Dispatcher {
    const lookup = isOwn ? this.#guard.openLookup : this.#guard.guardedLookup
    const connector = buildConnector({ ...this.#tls(isOwn), timeout: this.#options.timeouts.connectMs, lookup })
    return new Agent({ ...this.#limits(lane), connect: isOwn ? connector : this.#guarded(connector) })
  }

  /** The proxy resolves names, so it owns the policy on addresses; only its own address is dialled here (faults.md R52). */
  #openProxyAgent(lane: LaneName, isOwn: boolean, uri: string): Dispatcher {
    const lookup = this.#guard.openLookup
    const timeout = this.#options.timeouts.connectMs
    return new ProxyAgent({
      ...this.#limits(lane),
      uri,
      requestTls: { ...this.#tls(isOwn), timeout },
      proxyTls: { ...this.#tls(false), timeout, lookup },
    })
  }

  /** Looks at literals before the connection, since they never reach `lookup`, and at the peer after it. */
  #guarded(connect: buildConnector.connector): buildConnector.connector {
    return (options, callback) => {
      try {
        this.#guard.checkHost(options.hostname)
      } catch (error) {
        return callback(error instanceof Error ? error : new Error(String(error)), null)
      }
      connect(options, (...result) => {
        const [error, socket] = result
        if (error !== null) return callback(error, null)
        try {
          const peer = socket.remoteAddress
          if (peer !== undefined && isIP(peer) !== 0) this.#guard.checkAddress(peer, options.hostname)
        } catch (refusal) {
          socket.destroy()
          return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), null)
        }
        callback(null, socket)
      })
    }
  }

  /** The client certificate is shown to configured endpoints only, not to proxies, realms or redirect targets. */
  #tls(isOwn: boolean): { secureContext: SecureContext; allowH2: false } {
    this.#foreignContext ??= createSecureContext(this.#roots())
    // HTTP/2 is slower for blobs over one connection (dependencies.md section 3).
    return { secureContext: isOwn ? this.secureContext : this.#foreignContext, allowH2: false }
  }

  /** Any `ca` replaces the default roots, so they are added again; `default` includes NODE_EXTRA_CA_CERTS. */
  #roots(): { ca?: string[] } {
    const { ca } = this.#options
    return ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...ca] }
  }

  #limits(lane: LaneName): Agent.Options {
    const connections = connectionsOf(lane, this.#options.connections)
    return { allowH2: false, connections, maxHeaderSize: MAX_HEADER_BYTES, keepAliveTimeout: 15_000, pipelining: 1 }
  }
}

function laneOf(kind: RequestKind): LaneName {
  if (kind === 'blob') return 'blobs'
  return kind === 'token' ? 'tokens' : 'manifests'
}

function connectionsOf(lane: LaneName, connections: number): number {
  return lane === 'tokens' ? Math.min(TOKEN_CONNECTIONS, connections) : connections
}
