/** The operator's desk of a running gateway, over its admin API. */
import { GatewayError, type ErrorCode } from '../errors.ts'
import type {
  ImageList,
  ImageQuery,
  OperatorDesk,
  Pin,
  PurgeReport,
  PurgeRequest,
  SweepRequest,
  UpstreamHeld,
} from '../keeping/operator.ts'
import type { SweepReport } from '../keeping/sweep.ts'

export interface AdminClientOptions {
  /** `http://127.0.0.1:5080` */
  readonly url: string
  readonly token: string | undefined
}

/** A sweep of a million blobs takes minutes. */
const TIMEOUT_MS = 30 * 60_000

/** No gateway listens at the admin address. */
export class NobodyListens extends Error {
  override readonly name = 'NobodyListens'
}

export class AdminClient implements OperatorDesk {
  readonly #options: AdminClientOptions

  constructor(options: AdminClientOptions) {
    this.#options = options
  }

  async upstreams(): Promise<readonly UpstreamHeld[]> {
    const { upstreams } = await this.#ask<{ upstreams: readonly UpstreamHeld[] }>('GET', '/api/upstreams')
    return upstreams
  }

  images({ upstream, repository, after, limit }: ImageQuery): Promise<ImageList> {
    const query = new URLSearchParams({ limit: String(limit) })
    for (const [key, value] of Object.entries({ upstream, repository, after })) if (value) query.set(key, value)
    return this.#ask('GET', `/api/images?${query.toString()}`)
  }

  async pins(upstream?: string): Promise<readonly Pin[]> {
    const query = upstream === undefined ? '' : `?${new URLSearchParams({ upstream }).toString()}`
    const { pins } = await this.#ask<{ pins: readonly Pin[] }>('GET', `/api/pins${query}`)
    return pins
  }

  async addPin(upstream: string, pattern: string): Promise<boolean> {
    return (await this.#ask<{ changed: boolean }>('POST', '/api/pins', { upstream, pattern })).changed
  }

  async removePin(upstream: string, pattern: string): Promise<boolean> {
    return (await this.#ask<{ changed: boolean }>('DELETE', '/api/pins', { upstream, pattern })).changed
  }

  purge({ isDry: dry, ...selector }: PurgeRequest): Promise<PurgeReport> {
    return this.#ask('POST', '/api/purge', { ...selector, dry })
  }

  sweep({ upstream, isDry: dry }: SweepRequest): Promise<SweepReport> {
    return this.#ask('POST', '/api/sweep', { upstream, dry })
  }

  async #ask<T>(method: string, path: string, body?: object): Promise<T> {
    const { url, token } = this.#options
    const reply = await fetch(url + path, {
      method,
      redirect: 'error',
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).catch((error: unknown) => Promise.reject(unreachable(url, error)))
    const answer: unknown = await reply.json().catch(() => undefined)
    if (reply.ok && typeof answer === 'object' && answer !== null) return answer as T
    throw this.#refusal(reply.status, answer)
  }

  #refusal(status: number, answer: unknown): GatewayError {
    const { url, token } = this.#options
    if (status === 401) {
      const mend = token === undefined ? 'set admin.token here as it is there' : 'admin.token here is not its token'
      return new GatewayError('BAD_REQUEST', `the gateway at ${url} asks for a token: ${mend}`)
    }
    const told = typeof answer === 'object' && answer !== null ? answer : {}
    const text = 'error' in told && typeof told.error === 'string' ? told.error : `HTTP ${status}`
    const code = 'code' in told && typeof told.code === 'string' ? told.code : undefined
    if (code === undefined) {
      const mend = 'is it another program, or an older gateway?'
      return new GatewayError('BAD_REQUEST', `${url} answers ${text} to what a gateway of this version knows: ${mend}`)
    }
    // The gateway's own word, from the union both were built with.
    return new GatewayError(code as ErrorCode, text)
  }
}

function unreachable(url: string, error: unknown): Error {
  const cause = error instanceof Error ? error.cause : undefined
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  if (code === 'ECONNREFUSED' || code === 'ENETUNREACH') return new NobodyListens(`nobody listens at ${url}`)
  const reason = cause instanceof Error ? cause.message : error instanceof Error ? error.message : String(error)
  return new GatewayError('BAD_REQUEST', `the admin address ${url} cannot be asked: ${reason}`, { cause: error })
}
