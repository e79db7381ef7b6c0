/** One question to one endpoint: with authorization, through redirects, to the final reply. Retries are `exchange.ts`'s. */
import { codeOf, GatewayError, type ErrorCode } from '../errors.ts'
import type { Repository } from '../oci/repository.ts'
import type { Authorization, AuthorizationRequest, Authorizer } from './authorizer.ts'
import type { RateBudgets } from './budget.ts'
import type { Endpoint } from './endpoints.ts'
import type { Capability, RequestKind } from './options.ts'
import { isRedirect, MAX_REDIRECTS, planRedirect } from './redirect.ts'
import { MAX_PAUSE_MS } from './retry.ts'
import type { IncomingReply, Transport } from './transport.ts'
import type { CallOptions } from './upstream.ts'

export interface RegistryRequest {
  readonly kind: RequestKind
  readonly method: 'GET' | 'HEAD'
  readonly repository: Repository
  /** Below `/v2/`. */
  readonly path: string
  /** Without `?`. */
  readonly query: string
  readonly accept: string
  readonly range?: string | undefined
  readonly capability: Capability
  /** `HEAD ghcr.io/acme/app:1.2`: opens every message. */
  readonly subject: string
  /** A redirect to another origin is given as the reply instead of being followed. */
  readonly staysHome?: boolean
}

export interface RegistryReply extends IncomingReply {
  /** Where it came from in the end. */
  readonly url: URL
  readonly endpoint: Endpoint
  /** Whether a redirect led away from the endpoint's origin. */
  readonly hasLeft: boolean
  readonly authorization: Authorization | undefined
}

/** Whether the endpoint itself has said anything yet: what fails after that is not its fault. */
export interface Trail {
  hasAnswered: boolean
}

export interface AttemptOptions {
  readonly transport: Transport
  readonly authorizer: Authorizer
  readonly budgets: RateBudgets
  /** Sent with every request. */
  readonly headers: Readonly<Record<string, string>>
}

/** Challenges answered for one question: a held token, a fresh one, Basic, and the anonymous caller after it. */
const MAX_CHALLENGED = 4
/** Failures of what was remembered, after which the registry is asked anew what it wants. */
const RELEARNED: readonly (ErrorCode | undefined)[] = [
  'UPSTREAM_UNREACHABLE',
  'UPSTREAM_ERROR',
  'UPSTREAM_INVALID',
  'ADDRESS_REFUSED',
]

export class Attempt {
  readonly #options: AttemptOptions

  constructor(options: AttemptOptions) {
    this.#options = options
  }

  /** Sends with what is known and answers challenges until the reply is final, be it a refusal. */
  async send(endpoint: Endpoint, request: RegistryRequest, options: CallOptions, trail: Trail): Promise<RegistryReply> {
    const { authorizer, budgets } = this.#options
    const asking = { endpoint, repository: request.repository, signal: options.signal }
    let authorization = await this.#recall(asking)
    for (let challenged = 0; ; challenged++) {
      this.#spare(endpoint, request, options, authorization)
      const reply = await this.#follow(endpoint, request, authorization, options, trail)
      if (!reply.hasLeft) budgets.observe(budgetKey(endpoint, authorization), reply.headers)
      if (reply.status !== 401) authorizer.accept(authorization)
      if (reply.status !== 401 || reply.hasLeft || challenged === MAX_CHALLENGED) return reply
      // Its connection must be free before another one is waited for.
      const refusal = { ...reply, body: await reply.body.settle() }
      const challenges = reply.headers.getAll('www-authenticate')
      if (challenges.length === 0 && authorization === undefined) await this.#learnFromPing(asking)
      const next = await authorizer.answer(asking, challenges, authorization)
      if (next === undefined) return refusal
      authorization = next
    }
  }

  /** Sends to one address outside the endpoints' rules: the signed URL an earlier reply led to. */
  sendTo(url: URL, request: RegistryRequest, { signal, priority }: CallOptions): Promise<IncomingReply> {
    const { kind, method } = request
    const headers = this.#headersFor(request, undefined)
    return this.#options.transport.send({ kind, method, url, headers, signal, priority })
  }

  /** What `/v2/` of an endpoint says to an anonymous caller; the body is dropped. */
  async ping(endpoint: Endpoint, signal: AbortSignal): Promise<IncomingReply> {
    const { headers, transport } = this.#options
    const reply = await transport.send({ kind: 'ping', method: 'GET', url: endpoint.at('', ''), headers, signal })
    await reply.body.discard()
    return reply
  }

  /** A registry that moved to another token server must not be held to the old one. */
  async #recall(asking: AuthorizationRequest): Promise<Authorization | undefined> {
    try {
      return await this.#options.authorizer.recall(asking)
    } catch (error) {
      if (asking.signal.aborted) throw error
      this.#options.authorizer.forget(asking)
      if (!RELEARNED.includes(codeOf(error))) throw error
      return undefined
    }
  }

  async #learnFromPing({ endpoint, signal }: AuthorizationRequest): Promise<void> {
    const { headers } = await this.ping(endpoint, signal)
    this.#options.authorizer.learnFromPing(endpoint, headers.getAll('www-authenticate'))
  }

  /** Keeps the rest of a sinking pull budget for clients. Only manifest GETs count as pulls. */
  #spare(
    endpoint: Endpoint,
    { kind, method }: RegistryRequest,
    { priority }: CallOptions,
    authorization: Authorization | undefined,
  ): void {
    if (priority !== 'background' || kind !== 'manifest' || method !== 'GET') return
    if (!this.#options.budgets.isLow(budgetKey(endpoint, authorization))) return
    const retryAfterMs = MAX_PAUSE_MS
    throw new GatewayError('UPSTREAM_THROTTLED', 'not tried, few pulls are left and clients go first', { retryAfterMs })
  }

  /** Follows redirects by hand: headers are made anew for each hop, and what once left the endpoint carries no credential. */
  async #follow(
    endpoint: Endpoint,
    request: RegistryRequest,
    authorization: Authorization | undefined,
    { signal, priority }: CallOptions,
    trail: Trail,
  ): Promise<RegistryReply> {
    const { kind, method, subject } = request
    let url = endpoint.at(request.path, request.query)
    let hasLeft = false
    for (let hops = 0; ; hops++) {
      const headers = this.#headersFor(request, hasLeft ? undefined : authorization?.header)
      const sentAt = performance.now()
      const reply = await this.#options.transport.send({ kind, method, url, headers, signal, priority })
      if (!hasLeft) endpoint.measured(performance.now() - sentAt)
      trail.hasAnswered = true
      if (!isRedirect(reply.status)) return { ...reply, url, endpoint, hasLeft, authorization }
      const target = await planHop(url, reply, hops, subject)
      const leaves = target.origin !== endpoint.url.origin
      if (leaves && request.staysHome === true) return { ...reply, url, endpoint, hasLeft, authorization }
      await reply.body.discard()
      hasLeft ||= leaves
      url = target
    }
  }

  /** The whole set of headers of any request: nothing of a client's, no cookie, no `ns`. */
  #headersFor(request: RegistryRequest, authorization: string | undefined): Record<string, string> {
    return {
      ...this.#options.headers,
      accept: request.accept,
      ...(request.range === undefined ? undefined : { range: request.range }),
      ...(authorization === undefined ? undefined : { authorization }),
    }
  }
}

async function planHop(url: URL, reply: IncomingReply, hops: number, subject: string): Promise<URL> {
  try {
    if (hops === MAX_REDIRECTS) {
      throw new GatewayError('UPSTREAM_INVALID', `${subject}: more than ${MAX_REDIRECTS} redirects`)
    }
    return planRedirect(url, reply.headers.get('location'), subject)
  } catch (error) {
    await reply.body.discard()
    throw error
  }
}

function budgetKey(endpoint: Endpoint, authorization: Authorization | undefined): string {
  return `${endpoint.url.host} ${authorization?.identity ?? 'anonymous'}`
}
