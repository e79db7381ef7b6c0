/** Bearer tokens: exchanged once per what they grant, kept until shortly before they expire, never shared between identities. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { GatewayError, isNonAnswer } from '../errors.ts'
import { MAX_ERROR_BYTES } from './body.ts'
import { basicValueOf, type Credential } from './credentials.ts'
import { retryAfterOf } from './retry.ts'
import { scopeKey } from './scope.ts'
import type { IncomingReply, OutgoingRequest } from './transport.ts'
import { TransportError } from './transport-error.ts'

export interface Token {
  readonly value: string
  /** By our own clock: issued_at is ignored, servers' clocks differ (wire.md trap 52). */
  readonly expiresAt: number
}

/** All that decides what a token grants; equal in every part or another token. */
export interface TokenRequest {
  /** Judged before: whoever makes this request trusts it. */
  readonly realm: URL
  readonly service: string | undefined
  readonly scopes: readonly string[]
  readonly credential: Credential | undefined
}

/** The token server refused these credentials, or the anonymous caller, for these scopes. */
export class TokenRefused extends Error {
  override readonly name = 'TokenRefused'
  readonly status: number

  constructor(status: number, subject: string) {
    super(`${subject}: ${status}`)
    this.status = status
  }
}

export interface TokenSourceOptions {
  readonly send: (request: OutgoingRequest) => Promise<IncomingReply>
  readonly headers: Readonly<Record<string, string>>
  readonly postTokens: boolean
  readonly callMs: number
  readonly clock: Clock
  /** Told of every token in a reply, also of those that are not used. */
  readonly onSecret?: ((secret: string) => void) | undefined
  readonly onIssued: (request: TokenRequest, token: Token) => void
}

const MAX_TOKENS = 1_000
const MAX_TOKEN_BYTES = 8 * 1024 * 1024
const DEFAULT_LIFETIME_S = 60
const MIN_LIFETIME_S = 10
const MAX_LIFETIME_S = 3_600
const MAX_MARGIN_MS = 30_000
/** What registries answer that know no POST (GCR 404, Artifactory 401, ACR 400): containerd's list. */
const POST_UNSUPPORTED: readonly number[] = [400, 401, 404, 405]

export class TokenSource {
  readonly #options: TokenSourceOptions
  readonly #tokens: LRUCache<string, Token & { readonly refreshAt: number }>
  readonly #exchanges = new SingleFlight<Token>()

  constructor(options: TokenSourceOptions) {
    this.#options = options
    this.#tokens = new LRUCache({
      max: MAX_TOKENS,
      maxSize: MAX_TOKEN_BYTES,
      sizeCalculation: (token, key) => token.value.length + key.length,
    })
  }

  /** The token held for `request`, if it is not due for a refresh. */
  held(request: TokenRequest): Token | undefined {
    const token = this.#tokens.get(keyOf(request))
    return token !== undefined && token.refreshAt > this.#options.clock.now() ? token : undefined
  }

  /** Drops `token` if it is still the one held: the registry did not take it. */
  drop(request: TokenRequest, token: Token): void {
    const key = keyOf(request)
    if (this.#tokens.get(key)?.value === token.value) this.#tokens.delete(key)
  }

  /**
   * A held token, or a new one; callers with equal requests share one exchange. Rejects with `TokenRefused` (401, 403),
   * UPSTREAM_THROTTLED, UPSTREAM_UNREACHABLE, UPSTREAM_ERROR, UPSTREAM_INVALID or ADDRESS_REFUSED. While a token is due
   * for a refresh but not yet expired, a token server that gives no answer changes nothing.
   */
  async get(request: TokenRequest, signal: AbortSignal): Promise<Token> {
    const key = keyOf(request)
    const held = this.#tokens.get(key)
    const now = this.#options.clock.now()
    if (held !== undefined && held.refreshAt > now) return held
    try {
      return await this.#exchanges.join(key, signal, (shared) => this.#exchange(request, key, shared))
    } catch (error) {
      if (held !== undefined && held.expiresAt > now && isNonAnswer(error)) return held
      throw error
    }
  }

  async #exchange(request: TokenRequest, key: string, signal: AbortSignal): Promise<Token> {
    const askedAt = this.#options.clock.now()
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(this.#options.callMs)])
    const subject = `token from ${request.realm.host} for ${scopeKey(request.scopes) || 'no scope'}`
    try {
      const { value, lifetimeMs, secrets } = await this.#ask(request, subject, bounded)
      for (const secret of secrets) this.#options.onSecret?.(secret)
      const token = { value, expiresAt: askedAt + lifetimeMs }
      this.#tokens.set(key, { ...token, refreshAt: token.expiresAt - Math.min(lifetimeMs / 10, MAX_MARGIN_MS) })
      this.#options.onIssued(request, token)
      return token
    } catch (error) {
      if (signal.aborted || error instanceof TokenRefused || error instanceof GatewayError) throw error
      const reason = error instanceof TransportError ? `${error.kind} (${error.message})` : 'timeout'
      throw new GatewayError('UPSTREAM_UNREACHABLE', `${subject}: ${reason}`, { cause: error })
    }
  }

  async #ask(request: TokenRequest, subject: string, signal: AbortSignal): Promise<TokenReply> {
    const { credential } = request
    if (credential !== undefined && (this.#options.postTokens || credential.isIdentityToken)) {
      const reply = await this.#post(request, credential, signal)
      if (!POST_UNSUPPORTED.includes(reply.status)) return readToken(reply, subject, this.#options.clock.now())
      await reply.body.discard()
    }
    return readToken(await this.#fetch(request, signal), subject, this.#options.clock.now())
  }

  #fetch({ realm, service, scopes, credential }: TokenRequest, signal: AbortSignal): Promise<IncomingReply> {
    const url = new URL(realm)
    if (service !== undefined) url.searchParams.append('service', service)
    for (const scope of scopes) url.searchParams.append('scope', scope)
    const headers =
      credential === undefined
        ? this.#options.headers
        : { ...this.#options.headers, authorization: basicOf(credential) }
    return this.#options.send({ kind: 'token', method: 'GET', url, headers, signal })
  }

  #post({ realm, service, scopes }: TokenRequest, credential: Credential, signal: AbortSignal): Promise<IncomingReply> {
    const form = new URLSearchParams({ client_id: 'entrepot', scope: scopes.join(' ') })
    if (service !== undefined) form.set('service', service)
    if (credential.isIdentityToken) {
      form.set('grant_type', 'refresh_token')
      form.set('refresh_token', credential.password)
    } else {
      form.set('grant_type', 'password')
      form.set('username', credential.username)
      form.set('password', credential.password)
    }
    const headers = { ...this.#options.headers, 'content-type': 'application/x-www-form-urlencoded' }
    return this.#options.send({ kind: 'token', method: 'POST', url: realm, headers, body: form.toString(), signal })
  }
}

/** `Basic …` of a credential. */
export function basicOf(credential: Credential): string {
  return `Basic ${basicValueOf(credential)}`
}

function keyOf({ realm, service, scopes, credential }: TokenRequest): string {
  return JSON.stringify([credential?.id ?? null, realm.href, service ?? null, scopeKey(scopes)])
}

async function readToken(reply: IncomingReply, subject: string, now: number): Promise<TokenReply> {
  const { status, headers, body } = reply
  if (status !== 200) {
    await body.discard()
    if (status === 401 || status === 403) throw new TokenRefused(status, subject)
    const retryAfterMs = retryAfterOf(headers.get('retry-after'), now)
    const options = retryAfterMs === undefined ? {} : { retryAfterMs }
    if (status === 429)
      throw new GatewayError('UPSTREAM_THROTTLED', `${subject}: 429`, {
        ...options,
        cause: new TokenRefused(429, subject),
      })
    if (status >= 500) throw new GatewayError('UPSTREAM_ERROR', `${subject}: ${status}`, options)
    const hint = status >= 300 && status < 400 ? ', a redirect, which a token server may not send' : ''
    throw new GatewayError('UPSTREAM_INVALID', `${subject}: ${status}${hint}`)
  }
  const bytes = await body.readCapped(MAX_ERROR_BYTES, headers.get('content-encoding'), subject)
  const token = parseToken(bytes.toString('utf8'))
  // Never fall back to the credential itself as a Bearer value (faults.md 1C).
  if (token === undefined) throw new GatewayError('UPSTREAM_INVALID', `${subject}: the reply holds no token`)
  return token
}

export interface TokenReply {
  readonly value: string
  readonly lifetimeMs: number
  /** All that must not be shown, refresh tokens included: we ask for none and keep none, but a server may send one. */
  readonly secrets: readonly string[]
}

/** Undefined when the text is no token reply. `token` wins over `access_token`, as in Docker's clients. */
export function parseToken(text: string): TokenReply | undefined {
  let reply: unknown
  try {
    reply = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof reply !== 'object' || reply === null) return undefined
  const field = (name: string): unknown => (Object.hasOwn(reply, name) ? Reflect.get(reply, name) : undefined)
  const value = [field('token'), field('access_token')].find(
    (candidate) => typeof candidate === 'string' && candidate !== '',
  )
  // It goes into a header as it is: RFC 6750 section 2.1 allows visible characters only.
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value)) return undefined
  const secrets = ['token', 'access_token', 'refresh_token', 'id_token'].map(field)
  return {
    value,
    lifetimeMs: lifetimeOf(field('expires_in')) * 1_000,
    secrets: secrets.filter((secret) => typeof secret === 'string'),
  }
}

/** Seconds; missing, text, zero or negative is the default of the token specification. */
function lifetimeOf(expiresIn: unknown): number {
  if (typeof expiresIn !== 'number' || !Number.isFinite(expiresIn) || expiresIn <= 0) return DEFAULT_LIFETIME_S
  return Math.min(Math.max(expiresIn, MIN_LIFETIME_S), MAX_LIFETIME_S)
}
