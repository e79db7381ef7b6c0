/**
 * What is refused before it is a request: broken framing, bodies, more than one host. Every answer here closes the
 * connection, and whatever follows on it is never taken for a second request: Node has parsed it already by then.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { parseTarget } from '../routing/authority.ts'

interface Problem {
  readonly status: number
  readonly message: string
}

/** What the log is told of a request that never became one. */
export interface Refused extends Problem {
  /** What the client was told in `X-Request-Id`. */
  readonly requestId: string
  /** Address of the peer. */
  readonly client: string
}

export interface RefusalOptions {
  /** Requests with more headers are refused. */
  readonly maxHeaders: number
  /** Whether a response is under way on the connection. */
  readonly isBusy: (socket: Duplex) => boolean
  /** Whether other methods than GET and HEAD may bring a body of a known length. */
  readonly takesBodies: boolean
  /** Called once for each refusal. Must not throw. */
  readonly onRefused?: ((refused: Refused) => void) | undefined
}

export class Refusal {
  readonly #options: RefusalOptions
  readonly #refused = new WeakSet<Duplex>()

  constructor(options: RefusalOptions) {
    this.#options = options
  }

  /** Answers what never becomes a request, so that none of it reaches a default that crashes, waits or goes on. */
  guard(server: Server): void {
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
      const { code = '' } = error
      // While a response is under way, more text would look like a part of its body: then the connection just ends.
      // A failed TLS handshake has nobody to talk to either.
      const isHttp = code.startsWith('HPE_') || code.startsWith('ERR_HTTP_')
      const isLarge = code === 'HPE_HEADER_OVERFLOW' || code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW'
      if (!isHttp || !socket.writable || this.#options.isBusy(socket)) {
        socket.destroy()
        return
      }
      const requestId = this.#report(socket, {
        status: isLarge ? 431 : 400,
        message: `the request cannot be read: ${code}`,
      })
      sayGoodbye(socket, isLarge ? '431 Request Header Fields Too Large' : '400 Bad Request', { requestId })
    })
    server.on('connect', (_request, socket) => {
      const requestId = this.#report(socket, { status: 405, message: 'CONNECT' })
      sayGoodbye(socket, '405 Method Not Allowed', { requestId, headers: 'Allow: GET, HEAD\r\n' })
    })
    const expectation: RequestListener = (incoming, outgoing) =>
      this.#refuse(incoming, outgoing, { status: 417, message: 'this gateway takes no request bodies' })
    server.on('checkContinue', expectation)
    server.on('checkExpectation', expectation)
  }

  /** Answers a request that must not go further; false when it may. */
  refuses(incoming: IncomingMessage, outgoing: ServerResponse): boolean {
    // Sent behind a request that was refused: part of its body, or of somebody's trick. Its connection is closing.
    if (this.#refused.has(incoming.socket)) return true
    const problem = problemOf(incoming, this.#options)
    if (problem !== undefined) this.#refuse(incoming, outgoing, problem)
    return problem !== undefined
  }

  #refuse(incoming: IncomingMessage, outgoing: ServerResponse, { status, message }: Problem): void {
    if (this.#refused.has(incoming.socket)) return
    this.#refused.add(incoming.socket)
    const requestId = this.#report(incoming.socket, { status, message })
    const body = errorBody(status === 405 ? 'UNSUPPORTED' : 'UNKNOWN', message, requestId)
    outgoing.writeHead(status, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'x-content-type-options': 'nosniff',
      'x-request-id': requestId,
      connection: 'close',
      ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
    })
    outgoing.end(incoming.method === 'HEAD' ? undefined : body)
  }

  /** Gives the id under which it is told. */
  #report(socket: Duplex, problem: Problem): string {
    const requestId = randomUUID().slice(0, 18).replaceAll('-', '')
    this.#options.onRefused?.({
      ...problem,
      requestId,
      client: socket instanceof Socket ? (socket.remoteAddress ?? '') : '',
    })
    return requestId
  }
}

/** What is wrong with a request before anybody asks what it wants. */
function problemOf(
  { headers, rawHeaders, method, url = '' }: IncomingMessage,
  { maxHeaders, takesBodies }: RefusalOptions,
): Problem | undefined {
  if (rawHeaders.length > 2 * maxHeaders) return { status: 431, message: 'too many headers' }
  const hosts: string[] = []
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.toLowerCase() === 'host') hosts.push(rawHeaders[at + 1] ?? '')
  }
  if (parseTarget(url, hosts) === undefined) {
    return { status: 400, message: 'the Host header or the request target is malformed, or they name different hosts' }
  }
  const hasBody = headers['transfer-encoding'] !== undefined || !/^0*$/.test(headers['content-length'] ?? '')
  if (!hasBody) return undefined
  const isRead = method === 'GET' || method === 'HEAD'
  if (takesBodies && !isRead && headers['transfer-encoding'] === undefined) return undefined
  return isRead
    ? { status: 400, message: 'a GET or HEAD has no body' }
    : { status: 405, message: 'this gateway only answers GET and HEAD' }
}

function sayGoodbye(
  socket: Duplex,
  status: string,
  { requestId, headers = '' }: { readonly requestId: string; readonly headers?: string },
): void {
  const code = status.startsWith('405') ? 'UNSUPPORTED' : 'UNKNOWN'
  const body = errorBody(code, status.slice(4).toLowerCase(), requestId)
  socket.on('error', () => socket.destroy())
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nX-Request-Id: ${requestId}\r\n${headers}` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy(),
  )
}

function errorBody(code: string, message: string, requestId: string): string {
  return JSON.stringify({ errors: [{ code, message, detail: { requestId } }] })
}
