/**
 * One question to one upstream: the endpoints in order, each with authorization and redirects, and the retries around
 * them. Gives the final reply; what it means is `client.ts`'s business.
 */
import { delay } from '../async/abort.ts'
import type { Clock } from '../async/clock.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'
import type { Repository } from '../oci/repository.ts'
import type { Authorization, Authorizer } from './authorizer.ts'
import type { RateBudgets } from './budget.ts'
import type { Endpoint, Endpoints } from './endpoints.ts'
import type { Capability, RequestKind } from './options.ts'
import { isRedirect, MAX_REDIRECTS, planRedirect } from './redirect.ts'
import { backoffMs, MAX_PAUSE_MS, MAX_RETRIES, RetryBudget, retryAfterOf } from './retry.ts'
import type { IncomingReply, Transport } from './transport.ts'
import { TransportError } from './transport-error.ts'
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

export interface ExchangeOptions {
  readonly endpoints: Endpoints
  readonly transport: Transport
  readonly authorizer: Authorizer
  readonly budgets: RateBudgets
  /** Sent with every request. */
  readonly headers: Readonly<Record<string, string>>
  /** No retry starts later than this after the call: a caller who waits longer has other plans. */
  readonly retryWithinMs: number
  readonly clock: Clock
  readonly random: () => number
}

/** Why one endpoint gave nothing. */
interface Failure {
  readonly code: ErrorCode
  readonly reason: string
  readonly isRetryable: boolean
  readonly isAuthoritative: boolean
  readonly retryAfterMs?: number | undefined
  readonly cause?: unknown
}

/** Whether the endpoint itself has said anything yet: what fails after that is not its fault. */
interface Trail {
  hasAnswered: boolean
}

const MAX_CHALLENGED = 4

export class Exchange {
  readonly #options: ExchangeOptions
  readonly #retries = new RetryBudget()

  constructor(options: ExchangeOptions) {
    this.#options = options
  }

  /**
   * The final reply: a success, or a 4xx other than 429 of an endpoint whose word counts. Its body must be read, discarded
   * or cancelled. Rejects with the non-answers of `isNonAnswer`, OVERLOADED, or the signal's reason.
   */
  async send(request: RegistryRequest, options: CallOptions): Promise<RegistryReply> {
    const { clock, random, retryWithinMs } = this.#options
    const startedAt = clock.now()
    this.#retries.earn()
    let failure: Failure | undefined
    for (let tries = 0, round = 0; ; round++) {
      for (const endpoint of this.#candidates(request, failure, tries)) {
        tries++
        const outcome = await this.#try(endpoint, request, options)
        if ('status' in outcome) return outcome
        failure = failure?.isAuthoritative === true && !outcome.isAuthoritative ? failure : outcome
      }
      if (failure === undefined) throw new Error('no endpoint was tried')
      const mayRetry = failure.isRetryable && round < MAX_RETRIES && clock.now() - startedAt < retryWithinMs
      if (!mayRetry || !this.#retries.spend()) throw errorOf(failure, request.subject, tries)
      await delay(backoffMs(round, random), options.signal)
    }
  }

  /** Sends to one address outside the endpoints' rules: a signed URL of an earlier reply, or a ping. */
  async sendTo(url: URL, request: RegistryRequest, options: CallOptions): Promise<IncomingReply> {
    const { signal, priority } = options
    const { kind, method } = request
    return this.#options.transport.send({
      kind,
      method,
      url,
      headers: this.#headersFor(request, undefined),
      signal,
      priority,
    })
  }

  /** What `/v2/` of an endpoint says to an anonymous caller. */
  async ping(endpoint: Endpoint, signal: AbortSignal): Promise<IncomingReply> {
    const { headers, transport } = this.#options
    const reply = await transport.send({ kind: 'ping', method: 'GET', url: endpoint.at('', ''), headers, signal })
    await reply.body.discard()
    return reply
  }

  /** In later rounds the reason of the last failure says more than that nobody is left to ask. */
  #candidates(request: RegistryRequest, failure: Failure | undefined, tries: number): readonly Endpoint[] {
    try {
      return this.#options.endpoints.candidates(request.capability, request.subject)
    } catch (error) {
      throw failure === undefined ? error : errorOf(failure, request.subject, tries)
    }
  }

  async #try(endpoint: Endpoint, request: RegistryRequest, options: CallOptions): Promise<RegistryReply | Failure> {
    const { breaker, isAuthoritative } = endpoint
    // Another call may have begun to probe since the candidates were chosen.
    if (!breaker.enter()) {
      return { code: 'UPSTREAM_UNREACHABLE', reason: 'most recent calls failed', isRetryable: false, isAuthoritative }
    }
    const trail: Trail = { hasAnswered: false }
    let reply: RegistryReply
    try {
      reply = await this.#authorized(endpoint, request, options, trail)
    } catch (error) {
      if (trail.hasAnswered) breaker.succeed()
      else if (error instanceof TransportError) breaker.fail()
      else breaker.leave()
      if (options.signal.aborted) throw error
      return failureOf(error, endpoint)
    }
    if (isOutage(reply.status) && !reply.hasLeft) breaker.fail()
    else breaker.succeed()
    return this.#judge(reply)
  }

  /** Sorts out what is no answer: 5xx, 429, and the refusals of a mirror that nobody vouches for. */
  async #judge(reply: RegistryReply): Promise<RegistryReply | Failure> {
    const { status, headers, endpoint, hasLeft, url } = reply
    const isFinal = !isOutage(status) && status !== 429 && (status < 400 || endpoint.isAuthoritative)
    if (isFinal) {
      endpoint.answered()
      return reply
    }
    await reply.body.discard()
    const { isAuthoritative } = endpoint
    const from = hasLeft ? ` from ${url.host}, where a redirect led` : ''
    const asked = retryAfterOf(headers.get('retry-after'), this.#options.clock.now())
    if (status === 429) {
      const retryAfterMs = hasLeft ? asked : endpoint.pause(asked)
      return { code: 'UPSTREAM_THROTTLED', reason: `429${from}`, isRetryable: false, isAuthoritative, retryAfterMs }
    }
    if (isOutage(status)) {
      const retryAfterMs = asked === undefined || hasLeft ? asked : endpoint.pause(asked)
      const isRetryable = retryAfterMs === undefined
      return { code: 'UPSTREAM_ERROR', reason: `${status}${from}`, isRetryable, isAuthoritative, retryAfterMs }
    }
    const reason = `${status} from ${endpoint.url.host}, a mirror whose refusals do not count`
    return { code: 'UPSTREAM_ERROR', reason, isRetryable: false, isAuthoritative }
  }

  /** Sends with what is known, answers challenges until the reply is final. */
  async #authorized(
    endpoint: Endpoint,
    request: RegistryRequest,
    options: CallOptions,
    trail: Trail,
  ): Promise<RegistryReply> {
    const { authorizer, budgets } = this.#options
    const asking = { endpoint, repository: request.repository, signal: options.signal }
    let authorization = await authorizer.recall(asking)
    for (let challenged = 0; ; challenged++) {
      this.#spare(endpoint, request, options, authorization)
      const sentAt = performance.now()
      const reply = await this.#follow(endpoint, request, authorization, options, trail, () =>
        endpoint.measured(performance.now() - sentAt),
      )
      if (!reply.hasLeft) budgets.observe(budgetKey(endpoint, authorization), reply.headers)
      if (reply.status !== 401) authorizer.accept(authorization)
      if (reply.status !== 401 || reply.hasLeft || challenged === MAX_CHALLENGED) return reply
      const challenges = reply.headers.getAll('www-authenticate')
      if (challenges.length === 0 && authorization === undefined && challenged === 0) {
        authorizer.learnFromPing(
          endpoint,
          (await this.ping(endpoint, options.signal)).headers.getAll('www-authenticate'),
        )
      }
      let next: Authorization | undefined
      try {
        next = await authorizer.answer(asking, challenges, authorization)
      } catch (error) {
        reply.body.cancel()
        throw error
      }
      if (next === undefined) return reply
      await reply.body.discard()
      authorization = next
    }
  }

  /** Keeps the rest of a sinking pull budget for clients. Only manifest GETs count as pulls. */
  #spare(
    endpoint: Endpoint,
    request: RegistryRequest,
    options: CallOptions,
    authorization: Authorization | undefined,
  ): void {
    if (options.priority !== 'background' || request.kind !== 'manifest' || request.method !== 'GET') return
    if (!this.#options.budgets.isLow(budgetKey(endpoint, authorization))) return
    throw new GatewayError('UPSTREAM_THROTTLED', 'not tried, few pulls are left and clients go first', {
      retryAfterMs: MAX_PAUSE_MS,
    })
  }

  /** Follows redirects by hand: headers are made anew for each hop, and what once left the endpoint carries no credential. */
  async #follow(
    endpoint: Endpoint,
    request: RegistryRequest,
    authorization: Authorization | undefined,
    { signal, priority }: CallOptions,
    trail: Trail,
    onAnswer: () => void,
  ): Promise<RegistryReply> {
    const { kind, method, subject } = request
    let url = endpoint.at(request.path, request.query)
    let hasLeft = false
    for (let hops = 0; ; hops++) {
      const headers = this.#headersFor(request, hasLeft ? undefined : authorization?.header)
      const reply = await this.#options.transport.send({ kind, method, url, headers, signal, priority })
      if (hops === 0) onAnswer()
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

/** 501 says that a method or path is not there, and will not be there in a second either. */
function isOutage(status: number): boolean {
  return status >= 500 && status !== 501
}

async function planHop(url: URL, reply: IncomingReply, hops: number, subject: string): Promise<URL> {
  try {
    if (hops === MAX_REDIRECTS)
      throw new GatewayError('UPSTREAM_INVALID', `${subject}: more than ${MAX_REDIRECTS} redirects`)
    return planRedirect(url, reply.headers.get('location'), subject)
  } catch (error) {
    await reply.body.discard()
    throw error
  }
}

function budgetKey(endpoint: Endpoint, authorization: Authorization | undefined): string {
  return `${endpoint.url.host} ${authorization?.identity ?? 'anonymous'}`
}

const RETRYABLE: readonly string[] = ['dns', 'connect', 'timeout', 'reset', 'proxy']

function failureOf(error: unknown, endpoint: Endpoint): Failure {
  const { isAuthoritative } = endpoint
  if (error instanceof TransportError) {
    const code = error.kind === 'protocol' ? 'UPSTREAM_INVALID' : 'UPSTREAM_UNREACHABLE'
    const reason = `${error.kind} (${error.message})`
    return { code, reason, isRetryable: RETRYABLE.includes(error.kind), isAuthoritative, cause: error }
  }
  if (!(error instanceof GatewayError) || error.code === 'OVERLOADED') throw error
  const { code, message, retryAfterMs } = error
  if (code === 'UPSTREAM_THROTTLED' && error.cause !== undefined) endpoint.pause(retryAfterMs)
  const isRetryable = code === 'UPSTREAM_UNREACHABLE' || (code === 'UPSTREAM_ERROR' && retryAfterMs === undefined)
  return { code, reason: message, isRetryable, isAuthoritative, retryAfterMs, cause: error }
}

function errorOf({ code, reason, retryAfterMs, cause }: Failure, subject: string, tries: number): GatewayError {
  const said = reason.startsWith(subject) ? reason : `${subject}: ${reason}`
  const message = tries > 1 ? `${said} after ${tries} tries` : said
  return new GatewayError(code, message, { cause, ...(retryAfterMs === undefined ? undefined : { retryAfterMs }) })
}
