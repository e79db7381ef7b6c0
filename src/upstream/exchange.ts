/**
 * One question to one upstream: the endpoints in order, and the retries around them. Gives the final reply; what it means
 * is `client.ts`'s business.
 */
import { delay } from '../async/abort.ts'
import type { Clock } from '../async/clock.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'
import type { Attempt, RegistryReply, RegistryRequest, Trail } from './attempt.ts'
import type { Endpoint, Endpoints } from './endpoints.ts'
import { backoffMs, MAX_RETRIES, RetryBudget, retryAfterOf } from './retry.ts'
import { TransportError } from './transport-error.ts'
import type { CallOptions } from './upstream.ts'

export interface ExchangeOptions {
  readonly endpoints: Endpoints
  readonly attempt: Attempt
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
      reply = await this.#options.attempt.send(endpoint, request, options, trail)
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
      const retryAfterMs = hasLeft ? asked : endpoint.pause(asked, 'UPSTREAM_THROTTLED')
      return { code: 'UPSTREAM_THROTTLED', reason: `429${from}`, isRetryable: false, isAuthoritative, retryAfterMs }
    }
    if (isOutage(status)) {
      const retryAfterMs = asked === undefined || hasLeft ? asked : endpoint.pause(asked, 'UPSTREAM_ERROR')
      const isRetryable = retryAfterMs === undefined
      return { code: 'UPSTREAM_ERROR', reason: `${status}${from}`, isRetryable, isAuthoritative, retryAfterMs }
    }
    const reason = `${status} from ${endpoint.url.host}, a mirror whose refusals do not count`
    return { code: 'UPSTREAM_ERROR', reason, isRetryable: false, isAuthoritative }
  }
}

/** 501 says that a method or path is not there, and will not be there in a second either. */
function isOutage(status: number): boolean {
  return status >= 500 && status !== 501
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
  if (code === 'UPSTREAM_THROTTLED' && error.cause !== undefined) endpoint.pause(retryAfterMs, code)
  const isRetryable = code === 'UPSTREAM_UNREACHABLE' || (code === 'UPSTREAM_ERROR' && retryAfterMs === undefined)
  return { code, reason: message, isRetryable, isAuthoritative, retryAfterMs, cause: error }
}

function errorOf({ code, reason, retryAfterMs, cause }: Failure, subject: string, tries: number): GatewayError {
  const said = reason.startsWith(subject) ? reason : `${subject}: ${reason}`
  const message = tries > 1 ? `${said} after ${tries} tries` : said
  return new GatewayError(code, message, { cause, ...(retryAfterMs === undefined ? undefined : { retryAfterMs }) })
}
