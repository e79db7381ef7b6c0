/**
 * A listener: one Node server with its limits, its certificates and its end. Requests are read-only and have no body, so
 * everything that could hide a second request is refused here, before any framework builds a URL from it.
 */
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerOptions } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { GatewayError } from '../errors.ts'
import { CertificateChoice, type TlsOptions } from './certificates.ts'
import { Refusal, type Refused } from './refusal.ts'

export interface ListenerLimits {
  /** Time for a request's headers. Default 10 s. */
  readonly headersTimeoutMs: number
  /** Time for a whole request. Default 30 s. */
  readonly requestTimeoutMs: number
  /** How long an idle connection stays open: longer than a load balancer's idle time. Default 65 s. */
  readonly keepAliveTimeoutMs: number
  /** Default 16 KiB. */
  readonly maxHeaderBytes: number
  /** Default 100. */
  readonly maxHeaders: number
  /** Default 10,000. */
  readonly maxRequestsPerSocket: number
  /** Further connections are dropped. Default 4,096. */
  readonly maxConnections: number
}

const LIMITS: ListenerLimits = {
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  keepAliveTimeoutMs: 65_000,
  maxHeaderBytes: 16 * 1024,
  maxHeaders: 100,
  maxRequestsPerSocket: 10_000,
  maxConnections: 4096,
}

/** How long a client that does not end its side keeps a drain waiting. */
const LINGER_MS = 10_000

export interface ListenerOptions {
  /** Address to listen on; undefined or empty for every interface. */
  readonly host?: string | undefined
  /** 0 for any free port. */
  readonly port: number
  /** Where the address is configured, for messages: a key, with file and line where there is one. */
  readonly place: string
  readonly tls?: TlsOptions | undefined
  readonly serve: RequestListener
  /** Whether methods that change something may bring a body of a known length; a registry takes none. Default: false. */
  readonly takesBodies?: boolean
  /** Told of what was refused before it was a request: those never reach `serve`. Must not throw. */
  readonly onRefused?: (refused: Refused) => void
  readonly limits?: Partial<ListenerLimits>
}

export interface DrainOptions {
  /** Time in which new connections are still taken, for load balancers to notice. */
  readonly delayMs: number
  /** Time for what is under way after that; then every connection is closed. */
  readonly timeoutMs: number
}

/** A listener that is open. `drain` or `close` ends it; both may be called more than once. */
export class Listener implements AsyncDisposable {
  readonly port: number
  /** `http://127.0.0.1:5000`, IPv6 addresses in brackets. */
  readonly url: string
  readonly #server: Server | TlsServer
  readonly #certificates: CertificateChoice | undefined
  readonly #refusal: Refusal
  readonly #running = new Set<Running>()
  /** Connections that had their last reply, and when the client has ended them too. */
  readonly #lingering = new Map<Socket, Promise<void>>()
  #serve: RequestListener
  #draining = false
  #closed: Promise<void> | undefined

  private constructor(
    server: Server | TlsServer,
    certificates: CertificateChoice | undefined,
    options: ListenerOptions,
  ) {
    this.#server = server
    this.#certificates = certificates
    this.#serve = options.serve
    const { port } = server.address() as AddressInfo // a listening TCP server has one
    this.port = port
    this.url = `${certificates === undefined ? 'http' : 'https'}://${authorityOf(options.host, port)}`
    this.#refusal = new Refusal({
      maxHeaders: options.limits?.maxHeaders ?? LIMITS.maxHeaders,
      isBusy: (socket) => this.#isBusy(socket),
      onRefused: options.onRefused,
      takesBodies: options.takesBodies === true,
    })
    this.#refusal.guard(server)
    server.on('request', (incoming, outgoing) => this.#accept(incoming, outgoing))
  }

  /** Listens. Errors: PORT_UNAVAILABLE, CONFIG_INVALID for a certificate that cannot be used. */
  static async open(options: ListenerOptions): Promise<Listener> {
    const certificates = options.tls === undefined ? undefined : new CertificateChoice(options.tls, options.place)
    const limits = { ...LIMITS, ...options.limits }
    const server = makeServer(limits, certificates)
    await listen(server, options)
    return new Listener(server, certificates, options)
  }

  /** Requests being answered. */
  get inFlight(): number {
    return this.#running.size
  }

  /** From now on requests go to `serve`; those under way are not touched. */
  serveWith(serve: RequestListener): void {
    this.#serve = serve
  }

  /** New connections get the new certificates. Throws CONFIG_INVALID and keeps the old ones when they cannot be used. */
  replaceTls(tls: TlsOptions): void {
    const context = this.#certificates?.replace(tls)
    if (context !== undefined && 'setSecureContext' in this.#server) this.#server.setSecureContext(context)
  }

  /**
   * Ends in order: replies say `Connection: close`, then no new connections, then what is under way ends or is cut at the
   * deadline. Resolves to whether everything ended by itself.
   */
  async drain({ delayMs, timeoutMs }: DrainOptions): Promise<boolean> {
    this.#draining = true
    for (const running of this.#running) running.closeAfter()
    if (delayMs > 0 && this.#closed === undefined) await sleep(delayMs)
    const timer = new AbortController()
    const deadline = sleep(timeoutMs, false, { signal: timer.signal }).catch(() => false)
    // To Node these are idle, and it closes what is idle with the server.
    await Promise.race([Promise.all(this.#lingering.values()), deadline])
    const closed = this.#stopListening()
    this.#server.closeIdleConnections()
    const inTime = await Promise.race([closed.then(() => true), deadline])
    timer.abort()
    if (!inTime) await this.close()
    return inTime
  }

  /** Cuts every connection. */
  async close(): Promise<void> {
    this.#draining = true
    const closed = this.#stopListening()
    this.#server.closeAllConnections()
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #stopListening(): Promise<void> {
    this.#closed ??= new Promise((resolve) => this.#server.close(() => resolve()))
    return this.#closed
  }

  /**
   * Ends our side and waits for the client to end its own. That the kernel took the last bytes does not say that they
   * arrived, and with the process that is PID 1 of a container its network goes, and all that is still on the way.
   */
  #linger(socket: Socket): void {
    if (socket.destroyed || this.#lingering.has(socket)) return
    const timer = setTimeout(() => socket.destroy(), LINGER_MS)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#lingering.set(socket, promise)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#lingering.delete(socket)
      resolve()
    })
    socket.end()
  }

  #isBusy(socket: Duplex): boolean {
    return [...this.#running].some((running) => running.socket === socket)
  }

  #accept(incoming: IncomingMessage, outgoing: ServerResponseOf): void {
    const { socket } = incoming
    const running: Running = {
      socket,
      closeAfter: () => {
        if (!outgoing.headersSent) outgoing.shouldKeepAlive = false
        // What Node calls at the end of such a reply.
        socket.destroySoon = () => this.#linger(socket)
      },
    }
    this.#running.add(running)
    outgoing.once('close', () => {
      this.#running.delete(running)
      // A reply that left before the drain began said keep-alive: its connection is idle only now.
      if (this.#draining) setImmediate(() => this.#isBusy(socket) || this.#linger(socket))
    })
    if (this.#draining) running.closeAfter()
    if (!this.#refusal.refuses(incoming, outgoing)) this.#serve(incoming, outgoing)
  }
}

type ServerResponseOf = Parameters<RequestListener>[1]

interface Running {
  readonly socket: Socket
  /** Makes the connection end with this reply. */
  readonly closeAfter: () => void
}

/** What a hono application offers; its own type would tie this to one set of bindings. */
export interface FetchApplication {
  fetch(request: Request, env: HttpBindings): Response | Promise<Response>
}

/**
 * Serves a hono application. A reply that our own writer has sent already must not be written again: on HEAD hono wraps
 * what the handler returned in a new Response, so the marker would be lost.
 */
export function listenerFor(app: FetchApplication): RequestListener {
  const listener = getRequestListener(async (request, env) => {
    const bindings = env as HttpBindings // we only make HTTP/1 servers
    const reply = await app.fetch(request, bindings)
    return bindings.outgoing.headersSent || bindings.outgoing.destroyed ? RESPONSE_ALREADY_SENT : reply
  })
  return (incoming, outgoing) => void listener(incoming, outgoing)
}

function makeServer(limits: ListenerLimits, certificates: CertificateChoice | undefined): Server | TlsServer {
  const options: ServerOptions = {
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    maxHeaderSize: limits.maxHeaderBytes,
    // How often Node looks for connections beyond their time; its default of 30 s would make 10 s into 40.
    connectionsCheckingInterval: Math.min(1000, limits.headersTimeoutMs),
    // Node's own check answers, but goes on with what was pipelined behind; ours does not.
    requireHostHeader: false,
    insecureHTTPParser: false,
    noDelay: true,
  }
  const server =
    certificates === undefined ? createServer(options) : createTlsServer({ ...options, ...certificates.serverOptions })
  // Node drops what is beyond its own limit without a word, a Host header too; one more tells us that there was more.
  server.maxHeadersCount = limits.maxHeaders + 1
  server.maxRequestsPerSocket = limits.maxRequestsPerSocket
  server.maxConnections = limits.maxConnections
  return server
}

async function listen(server: Server | TlsServer, { host, port, place }: ListenerOptions): Promise<void> {
  const address = authorityOf(host, port)
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void => {
      reject(
        new GatewayError('PORT_UNAVAILABLE', `${place}: listening on ${address}: ${reasonOf(cause, port)}`, { cause }),
      )
    }
    server.once('error', failed)
    server.listen({ port, ...(host === undefined || host === '' ? {} : { host }) }, () => {
      server.off('error', failed)
      resolve()
    })
  })
}

function reasonOf({ code, message }: NodeJS.ErrnoException, port: number): string {
  switch (code) {
    case 'EADDRINUSE':
      return `the port is taken by another program; stop it (\`ss -ltnp 'sport = :${port}'\` shows which), or set another port`
    case 'EACCES':
      return 'this user may not listen there; use a port above 1023, or grant the capability CAP_NET_BIND_SERVICE'
    case 'EADDRNOTAVAIL':
      return 'no network interface of this machine has that address; set one it has, or none for all interfaces'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'the name has no address; write the address itself'
    default:
      return code ?? message
  }
}

function authorityOf(host: string | undefined, port: number): string {
  const shown = host === undefined || host === '' ? '0.0.0.0' : host
  return shown.includes(':') ? `[${shown}]:${port}` : `${shown}:${port}`
}
