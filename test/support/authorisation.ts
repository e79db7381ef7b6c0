/** The authorisation matrix: what can be asked for, in which ways, by whom; one request each, and its answer. */
import { Agent as HttpAgent, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { createServer } from 'node:net'
import type { RegistryPath } from '../../src/registry/path.ts'
import type { Via } from '../../src/routing/route.ts'

/** What an image's parts are called, to ask for each. */
export interface Names {
  readonly repository: string
  readonly tag: string
  readonly manifest: string
  readonly blob: string
}

export type Kind = RegistryPath['kind']

/** Path below `/v2/` of every endpoint; a new kind of path does not compile until it stands here. */
const PATHS: Readonly<Record<Kind, (names: Names) => readonly string[]>> = {
  ping: () => [''],
  catalog: () => ['_catalog'],
  manifest: ({ repository, tag, manifest }) => [
    `${repository}/manifests/${tag}`,
    `${repository}/manifests/${manifest}`,
  ],
  blob: ({ repository, blob }) => [`${repository}/blobs/${blob}`],
  tags: ({ repository }) => [`${repository}/tags/list`],
  referrers: ({ repository, manifest }) => [`${repository}/referrers/${manifest}`],
}

export interface Question {
  readonly kind: Kind
  readonly method: 'GET' | 'HEAD'
  readonly rest: string
  readonly headers: Readonly<Record<string, string>>
  /** Status for somebody who may. */
  readonly granted: number
}

/** Every endpoint by GET and HEAD, plain, for a part, and for something changed. */
export function questionsAbout(names: Names): readonly Question[] {
  return (Object.keys(PATHS) as Kind[]).flatMap((kind) =>
    PATHS[kind](names).flatMap((rest) =>
      (['GET', 'HEAD'] as const).flatMap((method): Question[] => {
        const plain = { kind, method, rest, headers: {}, granted: 200 }
        const etag = rest.endsWith(names.blob) ? names.blob : names.manifest
        const unchanged = { ...plain, headers: { 'if-none-match': `"${etag}"` }, granted: 304 }
        const part = { ...plain, headers: { range: 'bytes=1-4' }, granted: method === 'GET' ? 206 : 200 }
        if (kind === 'manifest') return [plain, unchanged]
        return kind === 'blob' ? [plain, part, unchanged] : [plain]
      }),
    ),
  )
}

/** Where a gateway is reached, for each way of naming an upstream. */
export interface Addresses {
  /** Of a listener without default, or whose default is another upstream. */
  readonly main: number
  readonly ports: Readonly<Record<string, number>>
  /** Listeners by the upstream that is their default. */
  readonly defaults: Readonly<Record<string, number>>
}

export interface Place {
  readonly via: Via
  readonly port: number
  readonly path: string
  readonly host: string | undefined
}

const WAYS: Readonly<Record<Via, (at: Addresses, upstream: string, rest: string) => Omit<Place, 'via'> | undefined>> = {
  outer: (at, upstream, rest) => ({ port: at.main, path: `/${upstream}/v2/${rest}`, host: undefined }),
  ns: (at, upstream, rest) => ({ port: at.main, path: `/v2/${rest}?ns=${upstream}`, host: undefined }),
  port: (at, upstream, rest) =>
    at.ports[upstream] === undefined ? undefined : { port: at.ports[upstream], path: `/v2/${rest}`, host: undefined },
  host: (at, upstream, rest) => ({ port: at.main, path: `/v2/${rest}`, host: hostOf(upstream) }),
  inner: (at, upstream, rest) => ({ port: at.main, path: `/v2/${upstream}/${rest}`, host: undefined }),
  default: (at, upstream, rest) =>
    at.defaults[upstream] === undefined
      ? undefined
      : { port: at.defaults[upstream], path: `/v2/${rest}`, host: undefined },
}

/** The name that `routes.hosts` of an upstream must list. */
export function hostOf(upstream: string): string {
  return `${upstream}.gw.test`
}

/** Every way that names `upstream` at these addresses. */
export function placesOf(at: Addresses, upstream: string, rest: string): readonly Place[] {
  return (Object.keys(WAYS) as Via[]).flatMap((via) => {
    const place = WAYS[via](at, upstream, rest)
    return place === undefined ? [] : [{ via, ...place }]
  })
}

export interface Connection extends Disposable {
  ask(place: Place, method: string, headers: Readonly<Record<string, string>>): Promise<Answer>
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export interface ConnectionTls {
  readonly ca: string
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

/** Kept connections to 127.0.0.1, by TLS with the given certificate, or plain. */
export function connection(tls?: ConnectionTls): Connection {
  const options = { keepAlive: true, maxSockets: 8 }
  const agent = tls === undefined ? new HttpAgent(options) : new HttpsAgent({ ...options, ...tls })
  return {
    ask: ({ port, path, host }, method, headers) => {
      const { promise, resolve, reject } = Promise.withResolvers<Answer>()
      const all = host === undefined ? headers : { ...headers, host }
      const wanted = { host: '127.0.0.1', port, path, method, headers: all, agent, servername: 'localhost' }
      const outgoing = (tls === undefined ? httpRequest : httpsRequest)(wanted, (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) }),
        )
      })
      outgoing.on('error', reject)
      outgoing.end()
      return promise
    },
    [Symbol.dispose]: () => agent.destroy(),
  }
}

/** Runs `work` for each entry, so many at a time. */
export async function eachOf<T>(
  entries: readonly T[],
  atATime: number,
  work: (entry: T) => Promise<void>,
): Promise<void> {
  const left = entries.values()
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      for (const entry of left) await work(entry)
    }),
  )
}

/** Ports that nobody listens on now, each another. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const { promise, resolve } = Promise.withResolvers<ReturnType<typeof createServer>>()
      const server = createServer().listen(0, '127.0.0.1', () => resolve(server))
      return promise
    }),
  )
  const ports = servers.map((server) => {
    const address = server.address()
    return address !== null && typeof address === 'object' ? address.port : 0
  })
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** Value of an `Authorization` header. */
export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
}
