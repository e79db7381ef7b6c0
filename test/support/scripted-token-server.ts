/**
 * A token server as registries use (distribution "token" and "oauth" specs), on a free port. It writes what it grants
 * into a ledger that a `ScriptedRegistry` reads, so a token opens exactly the repositories it was issued for.
 */
import { randomBytes } from 'node:crypto'
import picomatch from 'picomatch'
import type { Clock } from '../../src/async/clock.ts'
import { systemClock } from '../../src/async/clock.ts'
import { ScriptedServer, type Reply, type RequestRecord, type ServerOptions } from './fault-script.ts'
import { contentOf } from './tiny-image.ts'

/** What one token opens. */
export interface Grant {
  /** Undefined for a token that was given to nobody in particular. */
  readonly account: string | undefined
  readonly repositories: ReadonlySet<string>
  /** Epoch milliseconds. */
  readonly expiresAt: number
}

/** Grant by token value. */
export type TokenLedger = Map<string, Grant>

export interface Account {
  readonly name: string
  readonly password: string
  /** Globs of the repositories it may pull; `**` for all. */
  readonly pulls: readonly string[]
}

export interface TokenServerOptions extends ServerOptions {
  readonly accounts?: readonly Account[]
  /** Globs of what anybody may pull. Default none. */
  readonly anonymousPulls?: readonly string[]
  /** Default `scripted-registry`. */
  readonly service?: string
  /** Lifetime of a token in seconds, and what `expires_in` says. Default 300. */
  readonly lifetimeSeconds?: number
  /** Says this as `expires_in` instead, whatever it is; `omit` leaves the field out. */
  readonly expiresIn?: unknown
  /** The field or fields that carry the token. Default `token`. */
  readonly tokenField?: 'token' | 'access_token' | 'both'
  /** Adds `refresh_token` for accounts and accepts it. Default false. */
  readonly givesRefreshTokens?: boolean
  /** Default both; the other is refused with `refusalStatus`. */
  readonly method?: 'GET' | 'POST'
  /** What GCR (404), ACR (400), Artifactory (401) and others (405) say to a method they lack. Default 405. */
  readonly refusalStatus?: number
  /** To a known account that may not pull: by the spec 200 with an empty grant; GHCR says 401 or 403. Default 200. */
  readonly deniedStatus?: 200 | 401 | 403
  /** Length of a token. Default 40; Docker Hub's are some 4000. */
  readonly tokenBytes?: number
  readonly clock?: Clock
}

/** What a registry must know to challenge for tokens of this server. */
export interface BearerAuth {
  readonly scheme: 'bearer'
  readonly realm: string
  readonly service: string
  readonly tokens: TokenLedger
}

/** What a token request asks for, by either method. */
interface TokenQuestion {
  readonly service: string | undefined
  readonly scopes: readonly string[]
  readonly name: string | undefined
  readonly password: string | undefined
  readonly refreshToken: string | undefined
}

export class ScriptedTokenServer extends ScriptedServer {
  /** Every token that counts; `clear` it to revoke them all. */
  readonly tokens: TokenLedger = new Map()
  /** Account name by refresh token. */
  readonly refreshTokens = new Map<string, string>()
  readonly #options: TokenServerOptions
  readonly #clock: Clock

  constructor(options: TokenServerOptions = {}) {
    super(options)
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  get realm(): string {
    return `${this.url}/token`
  }

  get service(): string {
    return this.#options.service ?? 'scripted-registry'
  }

  auth(): BearerAuth {
    return { scheme: 'bearer', realm: this.realm, service: this.service, tokens: this.tokens }
  }

  /** Issues a token outside the protocol: one that a test wants to have expired, or to be for something else. */
  issue(grant: Grant): string {
    const length = this.#options.tokenBytes ?? 40
    const token = randomBytes(length).toString('base64url').slice(0, length)
    this.tokens.set(token, grant)
    return token
  }

  protected override classify(): Pick<RequestRecord, 'kind' | 'repository' | 'reference'> {
    return { kind: 'token', repository: undefined, reference: undefined }
  }

  protected override answer(request: RequestRecord): Reply {
    if (request.path !== '/token') return jsonReply(404, { error: 'not_found' })
    const { method, refusalStatus = 405 } = this.#options
    const isSpoken = request.method === 'GET' || request.method === 'POST'
    if (!isSpoken || (method !== undefined && method !== request.method))
      return jsonReply(refusalStatus, { error: 'unsupported_method' })
    const question = request.method === 'GET' ? readQuery(request) : readForm(request)
    if (question.service !== undefined && question.service !== this.service)
      return jsonReply(400, { error: 'invalid_service' })
    return this.#grant(question, request.query.get('offline_token') === 'true' || request.method === 'POST')
  }

  #grant(question: TokenQuestion, wantsRefresh: boolean): Reply {
    const isAnonymous = question.name === undefined && question.refreshToken === undefined
    const account = isAnonymous ? undefined : this.#authenticate(question)
    if (!isAnonymous && account === undefined)
      return jsonReply(401, { errors: [{ code: 'UNAUTHORIZED', message: 'incorrect username or password' }] })
    const mayPull = picomatch([...(this.#options.anonymousPulls ?? []), ...(account?.pulls ?? [])])
    const asked = question.scopes.flatMap(pulledRepository)
    const granted = asked.filter((repository) => mayPull(repository))
    const { deniedStatus = 200 } = this.#options
    if (granted.length < asked.length && deniedStatus !== 200)
      return jsonReply(deniedStatus, { errors: [{ code: 'DENIED', message: 'requested access is denied' }] })
    return this.#tokenReply(granted, account, wantsRefresh)
  }

  #tokenReply(repositories: readonly string[], account: Account | undefined, wantsRefresh: boolean): Reply {
    const { lifetimeSeconds = 300, expiresIn = lifetimeSeconds, tokenField = 'token' } = this.#options
    const now = this.#clock.now()
    const expiresAt = now + lifetimeSeconds * 1000
    const token = this.issue({ account: account?.name, repositories: new Set(repositories), expiresAt })
    const body: Record<string, unknown> = { issued_at: new Date(now).toISOString() }
    if (tokenField !== 'access_token') body['token'] = token
    if (tokenField !== 'token') body['access_token'] = token
    if (expiresIn !== 'omit') body['expires_in'] = expiresIn
    if (this.#options.givesRefreshTokens && account !== undefined && wantsRefresh)
      body['refresh_token'] = this.#refreshTokenFor(account)
    return jsonReply(200, body)
  }

  #refreshTokenFor(account: Account): string {
    const refreshToken = `refresh-${randomBytes(16).toString('base64url')}`
    this.refreshTokens.set(refreshToken, account.name)
    return refreshToken
  }

  #authenticate({ name, password, refreshToken }: TokenQuestion): Account | undefined {
    const accounts = this.#options.accounts ?? []
    if (refreshToken === undefined) return accounts.find((each) => each.name === name && each.password === password)
    const owner = this.refreshTokens.get(refreshToken)
    return accounts.find((each) => each.name === owner)
  }
}

/** Starts one on a free port; disposing closes it. */
export async function startTokenServer(options: TokenServerOptions = {}): Promise<ScriptedTokenServer> {
  const server = new ScriptedTokenServer(options)
  await server.listen()
  return server
}

/** The name and password of a Basic `Authorization` header. */
export function parseBasic(
  authorization: string | undefined,
): { readonly name: string; readonly password: string } | undefined {
  const encoded = /^basic +(\S+)$/i.exec(authorization ?? '')?.[1]
  if (encoded === undefined) return undefined
  const pair = Buffer.from(encoded, 'base64').toString()
  const colon = pair.indexOf(':')
  return colon < 0 ? undefined : { name: pair.slice(0, colon), password: pair.slice(colon + 1) }
}

function readQuery({ query, headers }: RequestRecord): TokenQuestion {
  const basic = parseBasic(headers['authorization'])
  return {
    service: query.get('service') ?? undefined,
    scopes: query.getAll('scope').flatMap((scope) => scope.split(' ')),
    name: basic?.name,
    password: basic?.password,
    refreshToken: undefined,
  }
}

function readForm({ body }: RequestRecord): TokenQuestion {
  const form = new URLSearchParams(body)
  const field = (name: string): string | undefined => form.get(name) ?? undefined
  const isRefresh = field('grant_type') === 'refresh_token'
  return {
    service: field('service'),
    scopes: form.getAll('scope').flatMap((scope) => scope.split(' ')),
    name: isRefresh ? undefined : field('username'),
    password: isRefresh ? undefined : field('password'),
    refreshToken: isRefresh ? (field('refresh_token') ?? '') : undefined,
  }
}

/** `repository:<name>:<actions>` when `pull` is among the actions. The name may hold a colon only in a host part. */
function pulledRepository(scope: string): readonly string[] {
  const [, name, actions] = /^repository(?:\([^)]*\))?:(.+):([^:]*)$/.exec(scope) ?? []
  return name !== undefined && actions?.split(',').includes('pull') ? [name] : []
}

function jsonReply(status: number, body: object): Reply {
  return { status, headers: { 'Content-Type': 'application/json' }, body: contentOf(Buffer.from(JSON.stringify(body))) }
}
