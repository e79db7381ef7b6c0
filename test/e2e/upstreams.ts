// Real registries on loopback ports, each over a storage folder: plain, Bearer with a token server, Basic over TLS, and
// the stock registry in proxy mode. Their own access logs are what counts requests.

import { mkdir, writeFile } from 'node:fs/promises'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { makeAuthority } from './certificates.ts'
import { answersHttp, freePort, labProgram, run, type Server, startServer } from './lab.ts'
import { makeSigningKey, startTokenServer, type TokenServer } from './token-server.ts'

/** One request as the registry's access log has it. */
export interface LoggedRequest {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly bytes: number
}

export interface Upstream extends AsyncDisposable {
  readonly url: string
  /** host:port */
  readonly host: string
  /** Requests of all runs so far, from its access log. */
  readonly requests: () => readonly LoggedRequest[]
  readonly stop: () => Promise<void>
  /** Starts it again after `stop`, at the same port. */
  readonly start: () => Promise<void>
}

export interface BearerUpstream extends Upstream {
  readonly realm: string
  readonly username: string
  readonly password: string
  /** Requests to the token server by `METHOD user`. */
  readonly tokenRequests: () => ReadonlyMap<string, number>
}

export interface BasicTlsUpstream extends Upstream {
  readonly caFile: string
  readonly username: string
  readonly password: string
}

interface RegistryOptions {
  readonly program: string
  /** Where its configuration lies. */
  readonly folder: string
  readonly storage: string
  /** More of the configuration: `auth`, `proxy`. */
  readonly more?: Readonly<Record<string, unknown>>
  readonly tls?: { readonly certificate: string; readonly key: string }
}

async function startRegistry(options: RegistryOptions): Promise<Upstream> {
  const port = await freePort()
  const host = `127.0.0.1:${port}`
  const scheme = options.tls === undefined ? 'http' : 'https'
  const url = `${scheme}://${host}`
  await mkdir(options.folder, { recursive: true })
  await mkdir(options.storage, { recursive: true })
  const file = join(options.folder, 'config.yml')
  const configuration = {
    version: 0.1,
    log: { level: 'warn', accesslog: { disabled: false } },
    storage: { filesystem: { rootdirectory: options.storage }, delete: { enabled: true } },
    http: { addr: host, secret: 'for-tests', ...(options.tls === undefined ? {} : { tls: options.tls }) },
    ...options.more,
  }
  await writeFile(file, stringify(configuration))
  const servers: Server[] = []
  const start = async (): Promise<void> => {
    const ready = (): Promise<boolean> =>
      options.tls === undefined ? answersHttp(`${url}/v2/`) : answersTls(`${url}/v2/`)
    servers.push(
      await startServer(options.program, ['serve', file], {
        ready,
        env: { OTEL_TRACES_EXPORTER: 'none' },
        graceMs: 500,
      }),
    )
  }
  const stop = async (): Promise<void> => servers.at(-1)?.stop()
  await start()
  return {
    url,
    host,
    requests: () => servers.flatMap((server) => server.lines.flatMap((line) => parseAccessLine(line) ?? [])),
    stop,
    start,
    [Symbol.asyncDispose]: stop,
  }
}

/** True when anything answers; the certificate is of no interest here. */
function answersTls(url: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(url, { rejectUnauthorized: false, timeout: 2000 }, (response) => {
      response.resume()
      resolve(true)
    })
    request.on('error', reject)
    request.end()
  })
}

function parseAccessLine(line: string): LoggedRequest | undefined {
  const found = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d{3}) (\d+|-)/.exec(line)
  if (found === null) return undefined
  const [, method = '', path = '', status = '0', bytes = '0'] = found
  return { method, path, status: Number(status), bytes: Number(bytes) || 0 }
}

/** Distribution 3, or another `program`, open to all: for content and for quick upstreams. */
export function startPlainRegistry(
  folder: string,
  storage: string,
  program = labProgram('registry'),
): Promise<Upstream> {
  return startRegistry({ program, folder, storage })
}

/** Debian's distribution 2.8. */
export const REGISTRY_2 = '/usr/bin/docker-registry'

/** Distribution 3, or another `program`, as a pull-through proxy of one upstream: what a gateway is measured against. */
export function startProxyRegistry(
  folder: string,
  storage: string,
  remoteUrl: string,
  program = labProgram('registry'),
): Promise<Upstream> {
  const more = { proxy: { remoteurl: remoteUrl, ...(program === REGISTRY_2 ? {} : { ttl: '168h' }) } }
  return startRegistry({ program, folder, storage, more })
}

/** Distribution 3 that takes Bearer tokens from a token server of its own; only `publicPrefixes` are pulled by anyone. */
export async function startBearerRegistry(
  folder: string,
  storage: string,
  publicPrefixes: readonly string[],
): Promise<BearerUpstream> {
  const account = { username: 'bearer-user', password: 'canary-bearer-password' }
  const named = { service: 'registry.bearer.test', issuer: 'tokens.bearer.test' }
  await mkdir(folder, { recursive: true })
  const port = await freePort()
  const jwksFile = join(folder, 'jwks.json')
  const key = await makeSigningKey()
  await writeFile(jwksFile, key.jwks)
  const tokenServers: TokenServer[] = []
  const startTokens = async (): Promise<TokenServer> => {
    const server = await startTokenServer({ ...account, ...named, publicPrefixes }, key, port)
    tokenServers.push(server)
    return server
  }
  const { realm } = await startTokens()
  const auth = { token: { realm, ...named, jwks: jwksFile, signingalgorithms: ['RS256'] } }
  const registry = await startRegistry({ program: labProgram('registry'), folder, storage, more: { auth } })
  const stop = async (): Promise<void> => {
    await registry.stop()
    await tokenServers.at(-1)?.stop()
  }
  return {
    ...registry,
    ...account,
    realm,
    tokenRequests: () => sumCounts(tokenServers.map((server) => server.requests)),
    stop,
    start: async () => {
      await startTokens()
      await registry.start()
    },
    [Symbol.asyncDispose]: stop,
  }
}

function sumCounts(counts: readonly ReadonlyMap<string, number>[]): ReadonlyMap<string, number> {
  const sum = new Map<string, number>()
  for (const one of counts) for (const [key, value] of one) sum.set(key, (sum.get(key) ?? 0) + value)
  return sum
}

/** Distribution 2.8 with Basic from an htpasswd file, over TLS from a private CA made here. */
export async function startBasicTlsRegistry(folder: string, storage: string): Promise<BasicTlsUpstream> {
  const account = { username: 'basic-user', password: 'canary-basic-password' }
  await mkdir(folder, { recursive: true })
  const authority = await makeAuthority(folder)
  const { certFile, keyFile } = await authority.issue(['127.0.0.1', 'localhost'])
  const htpasswd = join(folder, 'htpasswd')
  await writeFile(htpasswd, await run('htpasswd', ['-Bbn', '-C', '5', account.username, account.password]))
  const registry = await startRegistry({
    program: REGISTRY_2,
    folder,
    storage,
    more: { auth: { htpasswd: { realm: 'basic realm', path: htpasswd } } },
    tls: { certificate: certFile, key: keyFile },
  })
  return { ...registry, ...account, caFile: authority.caFile }
}
