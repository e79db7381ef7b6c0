// A token server as the distribution token specification has it: GET with Basic, POST with a form, RS256 tokens that a
// registry verifies for itself. Anonymous callers may pull public repositories, the one user may pull all.

import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'

export interface TokenServerOptions {
  readonly service: string
  readonly issuer: string
  readonly username: string
  readonly password: string
  /** Repositories anyone may pull begin with one of these. */
  readonly publicPrefixes: readonly string[]
  /** Seconds a token lives. Default 300. */
  readonly lifetimeSeconds?: number
}

export interface TokenServer extends AsyncDisposable {
  readonly realm: string
  /** Requests answered so far, by `METHOD user`. */
  readonly requests: ReadonlyMap<string, number>
  readonly stop: () => Promise<void>
}

interface Access {
  readonly type: string
  readonly name: string
  readonly actions: readonly string[]
}

interface Asked {
  readonly service: string | null
  readonly scopes: readonly string[]
  readonly username: string | undefined
  readonly password: string | undefined
}

/** What tokens are signed with; outlives the server, as a real one's key outlives its restart. */
export interface SigningKey {
  readonly keyId: string
  readonly privateKey: CryptoKey
  /** The public key as a JWK set, for the registry's `jwks` file. */
  readonly jwks: string
}

export async function makeSigningKey(): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true })
  const keyId = randomUUID()
  const jwk = { ...(await exportJWK(publicKey)), kid: keyId, alg: 'RS256', use: 'sig' }
  return { keyId, privateKey, jwks: JSON.stringify({ keys: [jwk] }) }
}

/** Starts on a loopback port; 0 takes a free one. */
export async function startTokenServer(
  options: TokenServerOptions,
  { keyId, privateKey }: SigningKey,
  port = 0,
): Promise<TokenServer> {
  const requests = new Map<string, number>()

  const grant = async (asked: Asked): Promise<{ status: number; body: object }> => {
    if (asked.service !== options.service) return refusal(400, 'UNSUPPORTED', 'unknown service')
    const isUser = asked.username === options.username && asked.password === options.password
    if (asked.username !== undefined && !isUser) return refusal(401, 'UNAUTHORIZED', 'incorrect username or password')
    const access = asked.scopes
      .map((scope) => parseScope(scope))
      .filter((one) => one !== undefined)
      .map((one) => ({ ...one, actions: isUser || isPublic(one) ? one.actions.filter((a) => a === 'pull') : [] }))
    const lifetime = options.lifetimeSeconds ?? 300
    const now = Math.floor(Date.now() / 1000)
    const token = await new SignJWT({ access })
      .setProtectedHeader({ alg: 'RS256', kid: keyId, typ: 'JWT' })
      .setIssuer(options.issuer)
      .setSubject(asked.username ?? '')
      .setAudience(options.service)
      .setIssuedAt(now)
      .setNotBefore(now - 5)
      .setExpirationTime(now + lifetime)
      .setJti(randomUUID())
      .sign(privateKey)
    const issued_at = new Date(now * 1000).toISOString()
    return { status: 200, body: { token, access_token: token, expires_in: lifetime, issued_at } }
  }
  const isPublic = (one: Access): boolean =>
    one.type === 'repository' && options.publicPrefixes.some((prefix) => one.name.startsWith(prefix))

  const server = createServer((request, response) => {
    const reply = async (): Promise<void> => {
      const asked = await readAsked(request)
      const key = `${request.method ?? ''} ${asked.username ?? 'anonymous'}`
      requests.set(key, (requests.get(key) ?? 0) + 1)
      const { status, body } = await grant(asked)
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    }
    reply().catch((error: unknown) => response.writeHead(500).end(String(error)))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address !== 'object') throw new Error('token server has no port')
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.closeAllConnections()
      server.close(() => resolve())
    })
  return {
    realm: `http://127.0.0.1:${address.port}/token`,
    requests,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function refusal(status: number, code: string, message: string): { status: number; body: object } {
  return { status, body: { errors: [{ code, message, detail: null }] } }
}

function parseScope(scope: string): Access | undefined {
  const [, type, name, actions] = /^([a-z]+):(.+):([a-z,*]+)$/.exec(scope) ?? []
  if (type === undefined || name === undefined || actions === undefined) return undefined
  return { type, name, actions: actions.split(',') }
}

async function readAsked(request: IncomingMessage): Promise<Asked> {
  const url = new URL(request.url ?? '/', 'http://localhost')
  if (request.method === 'POST') {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const form = new URLSearchParams(Buffer.concat(chunks).toString())
    return {
      service: form.get('service'),
      scopes: splitScopes(form.getAll('scope')),
      username: form.get('username') ?? undefined,
      password: form.get('password') ?? undefined,
    }
  }
  const basic = /^basic (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
  const pair = basic === undefined ? undefined : Buffer.from(basic, 'base64').toString()
  const colon = pair?.indexOf(':') ?? -1
  return {
    service: url.searchParams.get('service'),
    scopes: splitScopes(url.searchParams.getAll('scope')),
    username: pair?.slice(0, colon),
    password: pair?.slice(colon + 1),
  }
}

function splitScopes(scopes: readonly string[]): readonly string[] {
  return scopes.flatMap((scope) => scope.split(' ')).filter((scope) => scope !== '')
}
