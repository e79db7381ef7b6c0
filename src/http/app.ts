/**
 * The registry application: from a request on the wire to a handler and back. Each step turns a value into the next one;
 * whatever fails becomes an error reply in one place, and every request ends in one event.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TLSSocket } from 'node:tls'
import type { HttpBindings } from '@hono/node-server'
import { Hono, type Context } from 'hono'
import type { Principal } from '../access/client-auth.ts'
import type { Door } from '../access/door.ts'
import { codeOf, GatewayError } from '../errors.ts'
import { errorReply } from '../registry/error-reply.ts'
import { cacheStatus, jsonHeaders } from '../registry/headers.ts'
import { parseRegistryPath, type RegistryPath } from '../registry/path.ts'
import type { RegistryHandlers } from '../registry/request.ts'
import { parseTarget, type RequestTarget } from '../routing/authority.ts'
import { nsValues, route, type ListenerKey, type Route } from '../routing/route.ts'
import type { RouteTable } from '../routing/table.ts'
import { clientAddress, loggedUserAgent, type IsTrustedProxy, type RequestDone } from './access-log.ts'
import { Callers } from './caller.ts'
import type { Outcome, Reply } from './reply.ts'
import type { ReplyWriter, WriteResult } from './writer.ts'

export interface RegistryAppOptions {
  /** The listener that this application serves. */
  readonly listener: ListenerKey
  readonly routes: RouteTable
  /** Who may pull what by this listener. */
  readonly door: Door
  readonly handlers: RegistryHandlers
  readonly writer: ReplyWriter
  readonly isTrustedProxy: IsTrustedProxy
  /** Called once for every request, when its connection has everything or is gone. Must not throw. */
  readonly onDone: (done: RequestDone) => void
  /** Defaults to 16 random hexadecimal digits. */
  readonly newRequestId?: () => string
}

type Environment = { Bindings: HttpBindings; Variables: { exchange: RequestExchange } }
export type RegistryApp = Hono<Environment>

/** What a request has come to so far: the facts that its event tells. */
interface RequestExchange {
  readonly requestId: string
  readonly startedAt: number
  readonly incoming: IncomingMessage
  readonly outgoing: ServerResponse
  readonly gone: AbortController
  route?: Route
  path?: RegistryPath
  principal?: Principal | undefined
  outcome?: Outcome | undefined
  status: number
  written?: WriteResult
  error?: unknown
}

const PING = Buffer.from('{}')
const WELCOME = Buffer.from('Entrepot is running\n') // 20 bytes, and nothing of anybody else's

export function createRegistryApp(options: RegistryAppOptions): RegistryApp {
  const app: RegistryApp = new Hono()
  const callers = new Callers(options.isTrustedProxy)
  // Our writer owns the socket; `listenerFor` knows that what comes back here is not to be sent.
  const alreadySent = new Response(null)
  app.use(observed(options))
  app.all('*', async (c) => {
    const exchange = c.get('exchange')
    const reply = await answer(options, callers, exchange)
    await send(options, exchange, reply)
    return alreadySent
  })
  app.onError(async (error, c) => {
    const exchange = c.get('exchange')
    exchange.error = error
    if (exchange.outgoing.headersSent || exchange.gone.signal.aborted) exchange.outgoing.destroy()
    else await send(options, exchange, errorReply(error, exchange))
    return alreadySent
  })
  return app
}

/** Gives each request its id and its signal, and reports it once when it has ended, however it ends. */
function observed({ isTrustedProxy, onDone, newRequestId = randomRequestId }: RegistryAppOptions) {
  return async function observe(c: Context<Environment>, next: () => Promise<void>): Promise<void> {
    const { incoming, outgoing } = c.env
    const exchange: RequestExchange = {
      requestId: newRequestId(),
      startedAt: performance.now(),
      incoming,
      outgoing,
      gone: new AbortController(),
      status: 0,
    }
    c.set('exchange', exchange)
    // `close` comes after a whole reply too; aborting then would cancel nothing but costs an event.
    outgoing.once('close', () => {
      if (!outgoing.writableFinished) exchange.gone.abort(new DOMException('the client is gone', 'AbortError'))
    })
    outgoing.setHeader('x-request-id', exchange.requestId)
    await next()
    onDone(doneOf(exchange, clientAddress(incoming, isTrustedProxy)))
  }
}

/** The reply to a request; rejects with what makes an error reply. */
async function answer(options: RegistryAppOptions, callers: Callers, exchange: RequestExchange): Promise<Reply> {
  const { incoming, requestId } = exchange
  const { door } = options
  const target = targetOf(incoming)
  const { method } = incoming
  if (method !== 'GET' && method !== 'HEAD') throw new GatewayError('UNSUPPORTED', `${method}: read-only`)
  if (target.path === '/') return textReply(WELCOME)
  const found = route(options.routes, {
    listener: options.listener,
    host: target.host,
    serverName: serverNameOf(incoming),
    ns: nsValues(target.query),
    ociNamespace: singleHeader(incoming, 'oci-namespace'),
    rawPath: target.path,
  })
  if (found.kind === 'problem') throw new GatewayError(found.code, found.message)
  if (found.kind === 'route') exchange.route = found
  const path = parseRegistryPath(found.rest)
  if (path.kind === 'problem') throw new GatewayError(path.code, path.message)
  exchange.path = path
  const { signal } = exchange.gone
  const principal = door.asksWho ? await door.admit(callers.of(incoming), signal) : undefined
  exchange.principal = principal
  if (found.kind === 'route' && isForUpstream(found, path)) {
    const { upstream: name, pattern: declared = name } = found
    door.check(principal, { name, declared, repository: 'repository' in path ? path.repository : undefined })
  }
  const facts = {
    method,
    requestPath: target.path,
    query: new URLSearchParams(target.query),
    headers: {
      accept: incoming.headers.accept,
      range: incoming.headers.range,
      ifRange: singleHeader(incoming, 'if-range'),
      ifNoneMatch: incoming.headers['if-none-match'],
    },
    signal,
    requestId,
  } as const
  const { handlers } = options
  if (path.kind === 'ping') return pingReply()
  if (path.kind === 'catalog') {
    const mayUse = (upstream: string): boolean => door.mayUse(principal, upstream)
    return handlers.catalog({ ...facts, route: found.kind === 'route' ? found : undefined, mayUse })
  }
  if (found.kind === 'unrouted') throw new GatewayError('ROUTE_UNKNOWN', 'this address has no default upstream')
  switch (path.kind) {
    case 'manifest':
      return handlers.manifest({ ...facts, route: found, path })
    case 'blob':
      return handlers.blob({ ...facts, route: found, path })
    case 'tags':
      return handlers.tags({ ...facts, route: found, path })
    case 'referrers':
      return handlers.referrers({ ...facts, route: found, path })
  }
}

/** Whether a request asks for something of one upstream. A ping asks who one is; a catalog by default lists what is allowed. */
function isForUpstream({ via }: Route, { kind }: RegistryPath): boolean {
  return kind !== 'ping' && (kind !== 'catalog' || via !== 'default')
}

/** Adds what only this place knows, and hands the reply to the writer. */
async function send({ writer, door }: RegistryAppOptions, exchange: RequestExchange, reply: Reply): Promise<void> {
  const headers: Record<string, string> = { ...reply.headers }
  exchange.status = reply.status
  exchange.outcome = reply.outcome
  if (reply.outcome !== undefined) headers['cache-status'] ??= cacheStatus(reply.outcome)
  if (exchange.route?.ociNamespace !== undefined) headers['oci-namespace'] = exchange.route.ociNamespace
  if (door.asksWho) keepPrivate(headers)
  const result = await writer.write({ ...reply, headers }, exchange.incoming, exchange.outgoing)
  exchange.written = result
  if (result.error !== undefined) exchange.error = result.error
}

/** For whatever cache stands before us: the answer is this client's alone (RFC 9111 section 3.5; faults.md R12). */
function keepPrivate(headers: Record<string, string>): void {
  const control = headers['cache-control']
  if (control !== 'no-store') headers['cache-control'] = control === undefined ? 'private' : `private, ${control}`
  headers['vary'] = 'Authorization'
}

function doneOf(exchange: RequestExchange, client: string): RequestDone {
  const { requestId, incoming, route: found, path, principal, written, error } = exchange
  const isOver = written === undefined ? exchange.gone.signal.aborted : written.aborted
  return {
    requestId,
    method: incoming.method ?? '',
    upstream: found?.upstream,
    pattern: found?.pattern,
    via: found?.via,
    kind: path?.kind,
    repository: path !== undefined && 'repository' in path ? path.repository : undefined,
    reference: referenceOf(path),
    status: exchange.status,
    outcome: exchange.outcome,
    bytes: written?.bytes ?? 0,
    ms: performance.now() - exchange.startedAt,
    aborted: isOver,
    slow: written?.slow ?? false,
    client,
    principal: principal?.user ?? principal?.certificateNames[0],
    userAgent: loggedUserAgent(incoming),
    // What a client's own leaving made fail is no failure of ours.
    code: error === undefined ? undefined : (codeOf(error) ?? (isOver ? undefined : 'INTERNAL')),
    error,
  }
}

function referenceOf(path: RegistryPath | undefined): string | undefined {
  if (path === undefined) return undefined
  if ('reference' in path) return path.reference
  return 'digest' in path ? path.digest : undefined
}

/** The listener has refused whatever cannot be taken apart; this only tells the compiler so. */
function targetOf(incoming: IncomingMessage): RequestTarget {
  const host = incoming.headers.host
  const target = parseTarget(incoming.url ?? '', host === undefined ? [] : [host])
  if (target === undefined) throw new GatewayError('BAD_REQUEST', 'the Host header or the request target is malformed')
  return target
}

function serverNameOf({ socket }: IncomingMessage): string | undefined {
  return socket instanceof TLSSocket && typeof socket.servername === 'string' ? socket.servername : undefined
}

/** A header that Node joins when it is repeated; a list can never be one valid value of the ones we read. */
function singleHeader(incoming: IncomingMessage, name: string): string | undefined {
  const value = incoming.headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}

function pingReply(): Reply {
  return { status: 200, headers: jsonHeaders(PING.length), body: PING }
}

function textReply(text: Buffer): Reply {
  return { status: 200, headers: jsonHeaders(text.length, 'text/plain; charset=utf-8'), body: text }
}

function randomRequestId(): string {
  // Node keeps a stock of random bytes for these, which makes them several times cheaper than bytes of our own.
  return randomUUID().slice(0, 18).replaceAll('-', '')
}
