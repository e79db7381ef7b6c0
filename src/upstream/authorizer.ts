/**
 * From a 401 to the header that answers it, and from memory to the header that avoids it. Joins challenge, realm,
 * credential and token; sends nothing itself but token requests.
 */
import { GatewayError } from '../errors.ts'
import type { Repository } from '../oci/repository.ts'
import { BoundedMap } from '../async/bounded-map.ts'
import { parseChallenges, type Challenge } from './challenge.ts'
import { SourceFailed, type Credential, type CredentialBook } from './credentials.ts'
import type { Endpoint } from './endpoints.ts'
import { judgeRealm } from './realm.ts'
import type { Rejections } from './rejections.ts'
import { isPredictable, planScopes, pullScope, scopeKey } from './scope.ts'
import { basicOf, TokenRefused, type Token, type TokenRequest, type TokenSource } from './token.ts'

/** What goes into one request. */
export interface Authorization {
  /** Undefined: deliberately anonymous. */
  readonly header: string | undefined
  readonly scheme: 'basic' | 'bearer' | 'none'
  /** Identity for rate budgets: the credential's, or `anonymous`. */
  readonly identity: string
  /** Made in answer to a challenge, not from memory: a second 401 is final. */
  readonly isFresh: boolean
  /** A credential is configured but was refused, or its source failed: a denial then says nothing about rights. */
  readonly isFallback: boolean
  readonly token?: { readonly request: TokenRequest; readonly token: Token }
  readonly credential?: Credential
}

export interface AuthorizerOptions {
  readonly book: CredentialBook
  readonly tokens: TokenSource
  readonly rejections: Rejections
  readonly realms: readonly string[]
}

export interface AuthorizationRequest {
  readonly endpoint: Endpoint
  readonly repository: Repository
  readonly signal: AbortSignal
}

/** The challenge a repository met last; `anyRepository` holds the one that can be foreseen for all. */
type Learned =
  | { readonly scheme: 'basic' }
  | {
      readonly scheme: 'bearer'
      readonly realm: URL
      readonly service: string | undefined
      readonly scopes: readonly string[]
    }

const MAX_LEARNED = 1_000

export class Authorizer {
  readonly #options: AuthorizerOptions
  readonly #learned = new BoundedMap<Learned>(MAX_LEARNED)

  constructor(options: AuthorizerOptions) {
    this.#options = options
  }

  /** What earlier challenges taught, so that most calls need no 401; undefined: nothing, go unauthenticated. */
  async recall(request: AuthorizationRequest): Promise<Authorization | undefined> {
    const learned = this.#recallChallenge(request)
    if (learned === undefined) return undefined
    return learned.scheme === 'basic' ? this.#basic(request, false) : this.#bearer(request, learned, false)
  }

  /**
   * Answers a 401. `refused` is what was sent. Undefined: there is nothing better to send, the 401 is final. Rejects with
   * REALM_REJECTED, CREDENTIALS_REJECTED (a token server refused even the anonymous caller), or as the token server fails.
   */
  async answer(
    request: AuthorizationRequest,
    headers: readonly string[],
    refused: Authorization | undefined,
  ): Promise<Authorization | undefined> {
    const challenges = parseChallenges(headers)
    const bearer = challenges.find(({ scheme, params }) => scheme === 'bearer' && params.has('realm'))
    // Some registries send no challenge with content, only with the ping (gcr.io): then the one learnt before counts.
    const learned = bearer === undefined ? undefined : this.#learnBearer(request, bearer)
    if (learned !== undefined) return this.#answerBearer(request, learned, refused)
    if (challenges.some(({ scheme }) => scheme === 'basic')) return this.#answerBasic(request, refused)
    const recalled = challenges.length === 0 && refused === undefined ? this.#recallChallenge(request) : undefined
    if (recalled === undefined) return undefined
    return recalled.scheme === 'basic' ? this.#basic(request, true) : this.#bearer(request, recalled, true)
  }

  /** The credential rule that reads a repository; undefined: the anonymous caller. */
  identityOf(repository: Repository): string | undefined {
    return this.#options.book.ruleFor(repository)
  }

  /** Drops what was learnt of a repository: its next call meets the challenge anew. */
  forget({ endpoint, repository }: AuthorizationRequest): void {
    this.#learned.delete(`${endpoint.url.href} ${repository}`)
    this.#learned.delete(anyRepository(endpoint))
  }

  /** Told when a request with `authorization` got through, so that its credential is known to work. */
  accept(authorization: Authorization | undefined): void {
    if (authorization?.scheme === 'basic' && authorization.credential !== undefined) {
      this.#options.rejections.accept(authorization.credential)
    }
  }

  /** Learns from the challenge of `/v2/` what content does not say. */
  learnFromPing(endpoint: Endpoint, headers: readonly string[]): void {
    const learned = parseChallenges(headers)
      .map((challenge) => this.#learnable(endpoint, challenge))
      .find((each) => each !== undefined)
    if (learned !== undefined) this.#learned.set(anyRepository(endpoint), learned)
  }

  #learnable(endpoint: Endpoint, { scheme, params }: Challenge): Learned | undefined {
    if (scheme === 'basic') return { scheme }
    const verdict = judgeRealm(params.get('realm') ?? '', endpoint.url, this.#options.realms)
    return verdict.trusted ? { scheme, realm: verdict.url, service: params.get('service'), scopes: [] } : undefined
  }

  #recallChallenge({ endpoint, repository }: AuthorizationRequest): Learned | undefined {
    const own = this.#learned.get(`${endpoint.url.href} ${repository}`)
    const common = own ?? this.#learned.get(anyRepository(endpoint))
    if (common === undefined || common.scheme === 'basic' || own !== undefined) return common
    return { ...common, scopes: [pullScope(repository)] }
  }

  #learnBearer({ endpoint, repository }: AuthorizationRequest, challenge: Challenge): Learned & { scheme: 'bearer' } {
    const verdict = judgeRealm(challenge.params.get('realm') ?? '', endpoint.url, this.#options.realms)
    if (!verdict.trusted) {
      const hint = 'list it under network.realms if that token server may be asked'
      throw new GatewayError(
        'REALM_REJECTED',
        `${endpoint.url.host} names a token server that is not trusted: ${verdict.reason}; ${hint}`,
      )
    }
    const scopes = planScopes(challenge.params.get('scope'), repository)
    const learned = { scheme: 'bearer', realm: verdict.url, service: challenge.params.get('service'), scopes } as const
    this.#learned.set(`${endpoint.url.href} ${repository}`, learned)
    if (isPredictable(scopes, repository)) this.#learned.set(anyRepository(endpoint), learned)
    return learned
  }

  async #answerBearer(
    request: AuthorizationRequest,
    learned: Learned & { scheme: 'bearer' },
    refused: Authorization | undefined,
  ): Promise<Authorization | undefined> {
    if (refused?.token !== undefined) {
      const wasAsked = scopeKey(refused.token.request.scopes) === scopeKey(learned.scopes)
      // A fresh token that is not enough is how a token server says no (an empty grant): asking again would loop.
      if (refused.isFresh && wasAsked) return undefined
      this.#options.tokens.drop(refused.token.request, refused.token.token)
    }
    return this.#bearer(request, learned, true)
  }

  async #answerBasic(
    request: AuthorizationRequest,
    refused: Authorization | undefined,
  ): Promise<Authorization | undefined> {
    const { endpoint, repository } = request
    this.#learned.set(anyRepository(endpoint), { scheme: 'basic' })
    if (refused === undefined || refused.scheme === 'bearer') {
      const basic = await this.#basic(request, true)
      // Without a credential the 401 stands; one that is held back makes it a fallback, which the caller must know.
      return basic.header === undefined && !basic.isFallback ? undefined : basic
    }
    if (refused.scheme === 'none' || refused.credential === undefined) return undefined
    this.#options.rejections.reject(refused.credential, { scope: repository, status: 401, by: endpoint.url.host })
    this.#options.book.expire()
    return ANONYMOUS_FALLBACK
  }

  async #basic(request: AuthorizationRequest, isFresh: boolean): Promise<Authorization> {
    const { credential, isFallback } = await this.#credentialFor(request, request.repository)
    if (credential === undefined) return isFallback ? ANONYMOUS_FALLBACK : ANONYMOUS
    return {
      header: basicOf(credential),
      scheme: 'basic',
      identity: credential.id,
      isFresh,
      isFallback: false,
      credential,
    }
  }

  async #bearer(
    request: AuthorizationRequest,
    { realm, service, scopes }: Learned & { scheme: 'bearer' },
    isFresh: boolean,
  ): Promise<Authorization> {
    const scope = scopeKey(scopes)
    const { credential, isFallback } = await this.#credentialFor(request, scope)
    const base = { realm, service, scopes }
    if (credential === undefined) return this.#anonymousBearer(request, base, { isFresh, isFallback })
    const tokenRequest = { ...base, credential }
    const wasHeld = this.#options.tokens.held(tokenRequest) !== undefined
    try {
      const token = await this.#options.tokens.get(tokenRequest, request.signal)
      if (!wasHeld) this.#options.rejections.accept(credential)
      const common = { header: `Bearer ${token.value}`, scheme: 'bearer', identity: credential.id, credential } as const
      return { ...common, isFresh: isFresh && !wasHeld, isFallback: false, token: { request: tokenRequest, token } }
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error
      this.#options.rejections.reject(credential, { scope, status: error.status, by: realm.host })
      this.#options.book.expire()
      return this.#anonymousBearer(request, base, { isFresh, isFallback: true })
    }
  }

  async #anonymousBearer(
    { signal }: AuthorizationRequest,
    base: Omit<TokenRequest, 'credential'>,
    state: { readonly isFresh: boolean; readonly isFallback: boolean },
  ): Promise<Authorization> {
    const tokenRequest = { ...base, credential: undefined }
    const wasHeld = this.#options.tokens.held(tokenRequest) !== undefined
    try {
      const token = await this.#options.tokens.get(tokenRequest, signal)
      const common = { header: `Bearer ${token.value}`, scheme: 'bearer', identity: 'anonymous' } as const
      return { ...common, ...state, isFresh: state.isFresh && !wasHeld, token: { request: tokenRequest, token } }
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error
      const who = state.isFallback ? 'the configured credential and the anonymous caller' : 'the anonymous caller'
      throw new GatewayError('CREDENTIALS_REJECTED', `${error.message}: the token server refuses ${who}`, {
        cause: error,
      })
    }
  }

  /** A refused credential, and a source that fails, leave the anonymous caller: public content goes on. */
  async #credentialFor(
    { repository, signal }: AuthorizationRequest,
    scope: string,
  ): Promise<{ readonly credential: Credential | undefined; readonly isFallback: boolean }> {
    const { book, rejections } = this.#options
    try {
      const credential = await book.find(repository, signal)
      if (credential !== undefined) rejections.foundSource(credential.rule)
      if (credential !== undefined && rejections.holds(credential, scope))
        return { credential: undefined, isFallback: true }
      return { credential, isFallback: false }
    } catch (error) {
      if (!(error instanceof SourceFailed)) throw error
      rejections.missSource(error.rule, error.message)
      return { credential: undefined, isFallback: true }
    }
  }
}

const ANONYMOUS: Authorization = {
  header: undefined,
  scheme: 'none',
  identity: 'anonymous',
  isFresh: false,
  isFallback: false,
}
const ANONYMOUS_FALLBACK: Authorization = { ...ANONYMOUS, isFallback: true }

function anyRepository(endpoint: Endpoint): string {
  return `${endpoint.url.href} *`
}
