/** The addresses of one upstream: which may answer, in which order, and which are better left alone for now. */
import type { Clock } from '../async/clock.ts'
import { GatewayError } from '../errors.ts'
import { Breaker } from './breaker.ts'
import type { Capability, EndpointOptions, UpstreamEvent } from './options.ts'
import { MAX_PAUSE_MS } from './retry.ts'

export interface EndpointsOptions {
  readonly name: string
  readonly endpoints: readonly EndpointOptions[]
  readonly order: 'listed' | 'fastest'
  readonly clock: Clock
  readonly random: () => number
  readonly onEvent: (event: UpstreamEvent) => void
}

const LATENCY_SHARE = 0.3
/** A measurement halves in this time, so that an endpoint once found slow is tried again. */
const LATENCY_HALF_LIFE_MS = 10 * 60_000
const FIRST_THROTTLE_MS = 1_000
/** Long enough for a broken mirror to be seen to, short enough to forgive one bad sector on the way. */
const BLAME_MS = 600_000

/** `UPSTREAM_THROTTLED`: 429. `UPSTREAM_ERROR`: a 5xx that came with Retry-After. */
export type PauseCode = 'UPSTREAM_THROTTLED' | 'UPSTREAM_ERROR'

/** One base address with what is known about it. */
export class Endpoint {
  readonly url: URL
  readonly breaker: Breaker
  /** Its 404 and 403 are answers; those of a `[pull]` mirror only say that the mirror has nothing. */
  readonly isAuthoritative: boolean
  readonly #options: EndpointsOptions
  #latency: { readonly ms: number; readonly at: number } | undefined
  #pausedUntil = 0
  #pauseCode: PauseCode = 'UPSTREAM_THROTTLED'
  #throttleMs = FIRST_THROTTLE_MS
  #blamedUntil = 0

  constructor({ url }: EndpointOptions, isAuthoritative: boolean, options: EndpointsOptions) {
    this.url = url
    this.isAuthoritative = isAuthoritative
    this.#options = options
    const { clock, random, onEvent } = options
    this.breaker = new Breaker({
      clock,
      random,
      onOpen: (retryInMs) => onEvent({ type: 'endpoint.opened', endpoint: url.host, retryInMs }),
      onClose: () => onEvent({ type: 'endpoint.closed', endpoint: url.host }),
    })
  }

  /** The URL of `path` below `/v2/`. A base that already holds a `v2` segment is used as it is. */
  at(path: string, query: string): URL {
    const base = this.url.pathname.replace(/\/+$/, '')
    const root = base.split('/').includes('v2') ? base : `${base}/v2`
    const url = new URL(this.url.origin)
    url.pathname = `${root}/${path}`
    url.search = query
    return url
  }

  /** It sent bytes that were not what their digest says: others are asked first for a while. */
  blame(): void {
    this.#blamedUntil = this.#options.clock.now() + BLAME_MS
  }

  get isBlamed(): boolean {
    return this.#options.clock.now() < this.#blamedUntil
  }

  /** Milliseconds for which it asked to be left alone. */
  get pausedMs(): number {
    return Math.max(0, this.#pausedUntil - this.#options.clock.now())
  }

  /** What it said when it asked for the pause: who comes meanwhile is told the same, not that it asked too often. */
  get pauseCode(): PauseCode {
    return this.#pauseCode
  }

  /** Expected milliseconds to the head of a reply; 0 while unknown, which puts it first and so measures it. */
  get expectedMs(): number {
    if (this.#latency === undefined) return 0
    return this.#latency.ms * 0.5 ** ((this.#options.clock.now() - this.#latency.at) / LATENCY_HALF_LIFE_MS)
  }

  measured(ms: number): void {
    const before = this.#latency?.ms ?? ms
    this.#latency = { ms: before + (ms - before) * LATENCY_SHARE, at: this.#options.clock.now() }
  }

  /** It answers again: the next pause begins small. */
  answered(): void {
    this.#throttleMs = FIRST_THROTTLE_MS
  }

  /** Leaves it alone for as long as it said, or for a while that doubles when it did not. Answers the milliseconds. */
  pause(retryAfterMs: number | undefined, code: PauseCode): number {
    const pauseMs = retryAfterMs ?? this.#throttleMs
    const until = this.#options.clock.now() + pauseMs
    this.#throttleMs = Math.min(MAX_PAUSE_MS, this.#throttleMs * 2)
    if (until > this.#pausedUntil) {
      this.#pausedUntil = until
      this.#pauseCode = code
    }
    this.#options.onEvent({ type: 'throttled', endpoint: this.url.host, retryAfterMs: pauseMs })
    return pauseMs
  }
}

export class Endpoints {
  readonly #options: EndpointsOptions
  readonly #list: readonly { readonly endpoint: Endpoint; readonly capabilities: readonly Capability[] }[]

  constructor(options: EndpointsOptions) {
    this.#options = options
    const canResolve = options.endpoints.some(({ capabilities }) => capabilities.includes('resolve'))
    this.#list = options.endpoints.map((each) => ({
      endpoint: new Endpoint(each, !canResolve || each.capabilities.includes('resolve'), options),
      capabilities: each.capabilities,
    }))
  }

  get all(): readonly Endpoint[] {
    return this.#list.map(({ endpoint }) => endpoint)
  }

  /**
   * Those that may be asked now for what `capability` names, best first. With none: what the one whose pause ends first
   * said when it asked for it (UPSTREAM_THROTTLED or UPSTREAM_ERROR), UPSTREAM_UNREACHABLE when breakers are open, at once
   * in both cases; UPSTREAM_ERROR when no endpoint has the capability.
   */
  candidates(capability: Capability, subject: string): Endpoint[] {
    const able = this.#list
      .filter(({ capabilities }) => capabilities.includes(capability))
      .map(({ endpoint }) => endpoint)
    const ready = able.filter((endpoint) => endpoint.pausedMs === 0 && endpoint.breaker.admits)
    if (ready.length > 0) {
      const { order } = this.#options
      const rank = (endpoint: Endpoint): number => (order === 'fastest' ? endpoint.expectedMs : 0)
      return ready.sort((a, b) => Number(a.isBlamed) - Number(b.isBlamed) || rank(a) - rank(b))
    }
    const { name } = this.#options
    if (able.length === 0) {
      throw new GatewayError('UPSTREAM_ERROR', `${subject}: no endpoint of ${name} has the capability "${capability}"`)
    }
    const [paused] = able
      .map(({ pausedMs, pauseCode }) => ({ retryAfterMs: pausedMs, code: pauseCode }))
      .filter(({ retryAfterMs }) => retryAfterMs > 0)
      .sort((a, b) => a.retryAfterMs - b.retryAfterMs)
    if (paused !== undefined) {
      const { code, retryAfterMs } = paused
      throw new GatewayError(code, `${subject}: not tried, ${name} asked for a pause`, { retryAfterMs })
    }
    const retryAfterMs = Math.max(1, Math.min(...able.map(({ breaker }) => breaker.retryInMs)))
    throw new GatewayError('UPSTREAM_UNREACHABLE', `${subject}: not tried, most recent calls failed`, { retryAfterMs })
  }
}
