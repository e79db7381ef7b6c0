/**
 * What is refused before it is a request: broken framing, bodies, more than one host. Every answer here closes the
 * connection, so that whatever follows on it is never read as a second request.
 */
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { parseTarget } from '../routing/authority.ts'

/** Answers what never becomes a request, so that none of it reaches a default that crashes, waits or goes on. */
export function guard(server: Server, isBusy: (socket: Duplex) => boolean): void {
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const { code = '' } = error
    const large = code === 'HPE_HEADER_OVERFLOW' || code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW'
    // While a response is under way, more text would look like a part of its body: then the connection just ends.
    // A failed TLS handshake has nobody to talk to either.
    const isHttp = code.startsWith('HPE_') || code.startsWith('ERR_HTTP_')
    if (!isHttp || !socket.writable || isBusy(socket)) socket.destroy()
    else sayGoodbye(socket, large ? '431 Request Header Fields Too Large' : '400 Bad Request')
  })
  server.on('connect', (_request, socket) => sayGoodbye(socket, '405 Method Not Allowed', 'Allow: GET, HEAD\r\n'))
  const expectation: RequestListener = (incoming, outgoing) =>
    refuse(incoming, outgoing, { status: 417, message: 'this gateway takes no request bodies' })
  server.on('checkContinue', expectation)
  server.on('checkExpectation', expectation)
}

function sayGoodbye(socket: Duplex, status: string, headers = ''): void {
  const body = errorBody(status.startsWith('405') ? 'UNSUPPORTED' : 'UNKNOWN', status.slice(4).toLowerCase())
  socket.on('error', () => socket.destroy())
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\n${headers}` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy(),
  )
}

export interface RequestProblem {
  readonly status: number
  readonly message: string
}

/** What is wrong with a request before anybody asks what it wants. */
export function requestProblem(incoming: IncomingMessage, maxHeaders: number): RequestProblem | undefined {
  const { headers, method } = incoming
  if (incoming.rawHeaders.length > 2 * maxHeaders) return { status: 431, message: 'too many headers' }
  const hosts: string[] = []
  for (let at = 0; at + 1 < incoming.rawHeaders.length; at += 2) {
    if (incoming.rawHeaders[at]?.toLowerCase() === 'host') hosts.push(incoming.rawHeaders[at + 1] ?? '')
  }
  if (parseTarget(incoming.url ?? '', hosts) === undefined) {
    return { status: 400, message: 'the Host header or the request target is malformed, or they name different hosts' }
  }
  const hasBody = headers['transfer-encoding'] !== undefined || !/^0*$/.test(headers['content-length'] ?? '')
  if (!hasBody) return undefined
  return method === 'GET' || method === 'HEAD'
    ? { status: 400, message: 'a GET or HEAD has no body' }
    : { status: 405, message: 'this gateway only answers GET and HEAD' }
}

/** Answers and closes: what else came on this connection must not be read as a request. */
export function refuse(incoming: IncomingMessage, outgoing: ServerResponse, { status, message }: RequestProblem): void {
  const body = errorBody(status === 405 ? 'UNSUPPORTED' : 'UNKNOWN', message)
  outgoing.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'x-content-type-options': 'nosniff',
    connection: 'close',
    ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
  })
  outgoing.end(incoming.method === 'HEAD' ? undefined : body)
}

function errorBody(code: string, message: string): string {
  return JSON.stringify({ errors: [{ code, message }] })
}
