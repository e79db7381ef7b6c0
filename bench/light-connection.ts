// The light client's connection: one keep-alive HTTP/1.1 socket that counts bodies and drops them. Every read lands in one
// buffer shared by all connections of the process, so a body costs a system call a read and nothing else.

import { connect, type Socket } from 'node:net'

export interface Address {
  readonly host: string
  readonly port: number
}

export interface LightRequest {
  readonly method: 'GET' | 'HEAD'
  readonly path: string
  readonly accept?: string
  /** Sees each piece of the body; it must not keep it. */
  readonly sink?: (piece: Uint8Array) => void
}

export interface LightReply {
  readonly status: number
  /** Bytes of the body. */
  readonly bytes: number
  /** Milliseconds from the request to the first byte of the body; to the head, when there is no body. */
  readonly firstByteMs: number
  readonly totalMs: number
}

interface Exchange {
  readonly request: LightRequest
  readonly startedAt: number
  readonly resolve: (reply: LightReply) => void
  readonly reject: (error: Error) => void
  head: Buffer
  status: number
  expected: number
  received: number
  firstByteAt: number
}

const HEAD_END = Buffer.from('\r\n\r\n')
const MAX_HEAD_BYTES = 64 * 1024
/** A server that is silent for this long has failed. */
const SILENCE_MS = 60_000

/** The buffer reads land in. Larger ones are not filled by one read on loopback. */
export function makeReadBuffer(): Uint8Array {
  return new Uint8Array(512 * 1024)
}

/** One request at a time; connects when it must. Speaks Content-Length only, which every registry sends for what we ask. */
export class LightConnection implements Disposable {
  readonly #address: Address
  readonly #buffer: Uint8Array
  #socket: Socket | undefined
  #exchange: Exchange | undefined
  #mustClose = false

  constructor(address: Address, buffer: Uint8Array) {
    this.#address = address
    this.#buffer = buffer
  }

  /** Rejects on a lost or silent connection, a body that is short or long, and a body of unknown length. */
  send(request: LightRequest): Promise<LightReply> {
    if (this.#exchange !== undefined) throw new Error('a light connection carries one request at a time')
    const socket = this.#socket ?? this.#open()
    return new Promise((resolve, reject) => {
      const startedAt = performance.now()
      const counters = { head: Buffer.alloc(0), status: 0, expected: 0, received: 0, firstByteAt: 0 }
      this.#exchange = { request, startedAt, resolve, reject, ...counters }
      const accept = request.accept === undefined ? '' : `Accept: ${request.accept}\r\n`
      const host = `${this.#address.host}:${this.#address.port}`
      socket.write(`${request.method} ${request.path} HTTP/1.1\r\nHost: ${host}\r\n${accept}\r\n`)
    })
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  #open(): Socket {
    const { host, port } = this.#address
    const onread = {
      buffer: this.#buffer,
      callback: (length: number, buffer: Uint8Array): boolean => {
        this.#receive(socket, buffer.subarray(0, length))
        return true
      },
    }
    const socket = connect({ host, port, noDelay: true, onread })
    const lose = (why: string): void => {
      if (this.#socket === socket) this.#lose(why)
    }
    socket.setTimeout(SILENCE_MS, () => lose(`silent for ${SILENCE_MS} ms`))
    socket.on('error', (error) => lose(error.message))
    socket.on('end', () => lose('ended'))
    socket.on('close', () => lose('closed'))
    this.#socket = socket
    return socket
  }

  #lose(why: string): void {
    const exchange = this.#exchange
    this.#exchange = undefined
    this[Symbol.dispose]()
    if (exchange === undefined) return
    const { request, received, expected } = exchange
    exchange.reject(new Error(`${request.method} ${request.path}: ${why} after ${received} of ${expected} bytes`))
  }

  #receive(socket: Socket, bytes: Uint8Array): void {
    if (this.#socket !== socket) return
    const exchange = this.#exchange
    if (exchange === undefined) return this.#lose('bytes that nobody asked for')
    const body = exchange.status === 0 ? this.#readHead(exchange, bytes) : bytes
    if (body === undefined) return
    if (body.length > 0) {
      if (exchange.received === 0) exchange.firstByteAt = performance.now()
      exchange.received += body.length
      exchange.request.sink?.(body)
    }
    if (exchange.received > exchange.expected) return this.#lose('too many bytes')
    if (exchange.received === exchange.expected) this.#finish(exchange)
  }

  /** What follows the head in `bytes`, or undefined while it is not whole. */
  #readHead(exchange: Exchange, bytes: Uint8Array): Uint8Array | undefined {
    exchange.head = Buffer.concat([exchange.head, bytes])
    const end = exchange.head.indexOf(HEAD_END)
    if (end === -1) {
      if (exchange.head.length > MAX_HEAD_BYTES) this.#lose('endless head')
      return undefined
    }
    const text = exchange.head.toString('latin1', 0, end)
    const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1]
    if (length === undefined) {
      this.#lose(`no Content-Length in ${text.split('\r\n', 1)[0]}`)
      return undefined
    }
    exchange.status = Number(text.slice(9, 12))
    exchange.expected = exchange.request.method === 'HEAD' ? 0 : Number(length)
    exchange.firstByteAt = performance.now()
    this.#mustClose = /\r\nconnection: *close/i.test(text)
    return exchange.head.subarray(end + HEAD_END.length)
  }

  #finish(exchange: Exchange): void {
    this.#exchange = undefined
    if (this.#mustClose) this[Symbol.dispose]()
    const { status, received, startedAt, firstByteAt } = exchange
    const totalMs = performance.now() - startedAt
    exchange.resolve({ status, bytes: received, firstByteMs: firstByteAt - startedAt, totalMs })
  }
}
