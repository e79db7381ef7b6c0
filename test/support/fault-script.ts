/**
 * A scripted HTTP/1.1 server: answers like the real one until a test scripts a fault, and keeps a record of every
 * request. It writes its answers to the socket itself, so that it can also be wrong in ways that node:http refuses.
 * Knows nothing of registries; `ScriptedRegistry` and `ScriptedTokenServer` say what the right answer is.
 */
import { EventEmitter, once } from 'node:events'
import * as net from 'node:net'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import * as tls from 'node:tls'
import { inspect } from 'node:util'
import { gzipSync } from 'node:zlib'
import { bytesOf, contentOf, type Content } from './tiny-image.ts'

// --------------------------------------------------------------------------------------------------------- faults

export type Header = readonly [name: string, value: string]
export type Headers = Readonly<Record<string, string | readonly string[]>>

/** Offsets count bytes of this answer's body, except that of `corrupt`, which counts bytes of the whole blob. */
export type Fault =
  | { readonly kind: 'none' }
  | { readonly kind: 'delay'; readonly until: number | Promise<unknown> }
  | { readonly kind: 'stall'; readonly after: number; readonly until: Promise<unknown> | undefined }
  | { readonly kind: 'reset'; readonly after: number }
  | { readonly kind: 'cut'; readonly after: number }
  | { readonly kind: 'slice'; readonly bytes: number }
  | { readonly kind: 'rate'; readonly bytesPerSecond: number }
  | { readonly kind: 'corrupt'; readonly offset: number }
  | { readonly kind: 'resize'; readonly bytes: number }
  | { readonly kind: 'lieLength'; readonly bytes: number }
  | { readonly kind: 'reply'; readonly reply: Reply }
  | { readonly kind: 'header'; readonly name: string; readonly value: string | undefined }
  | { readonly kind: 'raw'; readonly text: string }
  | { readonly kind: 'interim'; readonly status: number; readonly headers: Headers }
  | { readonly kind: 'gzip'; readonly onlyIfAccepted: boolean }
  | { readonly kind: 'ignoreRange' }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'closeDelimited' }
  | { readonly kind: 'unsolicited'; readonly text: string; readonly afterMs: number }

/** Before the first header byte; 0 is after the headers and before the body. */
const BEFORE_HEADERS = -1

const UNSOLICITED = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\npoisoned'

/** One constructor per verb. Several faults in one step act together: `[fault.delay(20), fault.reset(1000)]`. */
export const fault = {
  /** The right answer: keeps a place in a sequence. */
  none: (): Fault => ({ kind: 'none' }),
  /** Waits before the headers, so many milliseconds or until a promise settles. */
  delay: (until: number | Promise<unknown>): Fault => ({ kind: 'delay', until }),
  /** Goes silent after `after` body bytes (without it: before the headers), for ever or until a promise settles. */
  stall: (after = BEFORE_HEADERS, until?: Promise<unknown>): Fault => ({ kind: 'stall', after, until }),
  /** RST after `after` body bytes; without it before the headers. A peer that does not read may lose the last of them. */
  reset: (after = BEFORE_HEADERS): Fault => ({ kind: 'reset', after }),
  /** A clean FIN after `after` body bytes; without it before the headers. */
  cut: (after = BEFORE_HEADERS): Fault => ({ kind: 'cut', after }),
  /** Body in TCP segments of at most `bytes`. */
  slice: (bytes: number): Fault => ({ kind: 'slice', bytes }),
  rate: (bytesPerSecond: number): Fault => ({ kind: 'rate', bytesPerSecond }),
  /** Flips byte `offset` of the blob, wherever an answer covers it; negative counts from its end. */
  corrupt: (offset: number): Fault => ({ kind: 'corrupt', offset }),
  /** The body really is longer (padded with zeros) or shorter, and Content-Length agrees with it. */
  resize: (bytes: number): Fault => ({ kind: 'resize', bytes }),
  /** Content-Length is off by `bytes`, the body is right. Positive ends in a FIN, negative in bytes nobody announced. */
  lieLength: (bytes: number): Fault => ({ kind: 'lieLength', bytes }),
  status: (status: number, headers: Headers = {}, body: string | Uint8Array = ''): Fault =>
    reply(status, headers, contentOf(Buffer.from(body))),
  redirect: (location: string, status: 301 | 302 | 303 | 307 | 308 = 307): Fault =>
    reply(status, { Location: location }),
  /** What a captive portal says. */
  html: (body = '<!doctype html><title>Please log in</title>', status = 200): Fault =>
    reply(status, { 'Content-Type': 'text/html; charset=utf-8' }, contentOf(Buffer.from(body))),
  /** 429 with a Retry-After of seconds or an HTTP date; none when left out. */
  tooManyRequests: (retryAfter?: number | string): Fault => {
    const headers = retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) }
    const body = '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    return reply(429, { 'Content-Type': 'application/json', ...headers }, contentOf(Buffer.from(body)))
  },
  /** 200 with `bytes` bytes of a JSON string that has no end in sight, made as they are sent. */
  hugeBody: (bytes: number): Fault => reply(200, { 'Content-Type': 'application/json' }, endlessToken(bytes)),
  /** Replaces a header of the right answer; undefined leaves it out. */
  header: (name: string, value: string | undefined): Fault => ({ kind: 'header', name, value }),
  noDigest: (): Fault => ({ kind: 'header', name: 'Docker-Content-Digest', value: undefined }),
  contentRange: (value: string | undefined): Fault => ({ kind: 'header', name: 'Content-Range', value }),
  /** These bytes in place of an answer, then FIN. */
  garbage: (text = 'SSH-2.0-OpenSSH_9.9\r\n'): Fault => ({ kind: 'raw', text }),
  /** A 1xx before the answer: 100, 102, 103. */
  interim: (status: number, headers: Headers = {}): Fault => ({ kind: 'interim', status, headers }),
  gzip: ({ onlyIfAccepted = false } = {}): Fault => ({ kind: 'gzip', onlyIfAccepted }),
  /** 200 and everything, as if no Range had been asked for. */
  ignoreRange: (): Fault => ({ kind: 'ignoreRange' }),
  chunked: (): Fault => ({ kind: 'chunked' }),
  /** Neither Content-Length nor chunks: the body ends with the connection. */
  closeDelimited: (): Fault => ({ kind: 'closeDelimited' }),
  /** A second response on the connection once it is idle. */
  unsolicited: (text = UNSOLICITED, afterMs = 5): Fault => ({ kind: 'unsolicited', text, afterMs }),
} as const

function reply(status: number, headers: Headers, body: Content = contentOf(new Uint8Array())): Fault {
  return { kind: 'reply', reply: { status, headers, body } }
}

function endlessToken(size: number): Content {
  const opening = Buffer.from('{"token":"')
  const slice = (from: number, to: number): Uint8Array => {
    const bytes = Buffer.alloc(to - from, 'a')
    if (from < opening.length) opening.copy(bytes, 0, from)
    return bytes
  }
  return { size, slice }
}

// ------------------------------------------------------------------------------------------------------- requests

/** One request and what became of its answer; the fields that are not readonly grow as it is sent. */
export interface RequestRecord {
  /** Epoch milliseconds with fractions, from the monotonic clock, as all times here. */
  readonly at: number
  readonly method: string
  /** The request target as received. */
  readonly url: string
  readonly path: string
  readonly query: URLSearchParams
  /** By lower-case name; repeated ones joined with a comma. */
  readonly headers: Readonly<Record<string, string>>
  readonly rawHeaders: readonly Header[]
  readonly body: string
  /** 1 for the first connection this server accepted. */
  readonly connection: number
  /** Common name of the client certificate, when one was asked for and shown. */
  readonly clientName: string | undefined
  /** The Range header. */
  readonly range: string | undefined
  /** What the path names: `blob`, `manifest`, `ping`, `token` … as the server classifies it. */
  readonly kind: string
  readonly repository: string | undefined
  /** Tag or digest. */
  readonly reference: string | undefined
  readonly faults: readonly Fault['kind'][]
  /** Offset within the blob of the first body byte. */
  offset: number
  /** 0 while nothing was answered. */
  status: number
  /** Body bytes given to the kernel; up to a socket buffer more than a peer that went away has read. */
  bytesSent: number
  firstByteAt: number | undefined
  endedAt: number | undefined
  /** The peer went away before the answer was over, or the test closed the server or dropped its connections. */
  aborted: boolean
}

/** Which requests; every field that is given must agree. A string or expression alone is a path. */
export interface Matcher {
  readonly method?: string
  /** A string is the whole path. */
  readonly path?: string | RegExp
  readonly kind?: string
  readonly repository?: string
  readonly reference?: string
  readonly status?: number
  /** With or without a Range header. */
  readonly isRange?: boolean
  readonly where?: (request: RequestRecord) => boolean
}
export type Match = Matcher | string | RegExp

export function matches(match: Match, request: RequestRecord): boolean {
  if (typeof match === 'string' || match instanceof RegExp) return matches({ path: match }, request)
  const { path, isRange, where } = match
  if (path !== undefined && !(typeof path === 'string' ? path === request.path : path.test(request.path))) return false
  if (isRange !== undefined && isRange !== (request.range !== undefined)) return false
  for (const field of ['method', 'kind', 'repository', 'reference', 'status'] as const) {
    if (match[field] !== undefined && match[field] !== request[field]) return false
  }
  return where?.(request) ?? true
}

// -------------------------------------------------------------------------------------------------------- scripts

/** One fault, or several that act on the same answer; or what chooses them once the request is known. */
export type Step = Fault | readonly Fault[] | ((request: RequestRecord) => readonly Fault[])

export class FaultScript {
  readonly #match: Match
  readonly #steps: Step[]
  readonly #isPermanent: boolean
  #played = 0

  constructor(match: Match, steps: readonly Step[], { isPermanent }: { readonly isPermanent: boolean }) {
    this.#match = match
    this.#steps = [...steps]
    this.#isPermanent = isPermanent
  }

  /** How many requests it has acted on. */
  get played(): number {
    return this.#played
  }

  /** How many steps nobody has met yet. */
  get left(): number {
    return this.#steps.length
  }

  get isPermanent(): boolean {
    return this.#isPermanent
  }

  /** From now on it acts on nothing; what it has begun goes on. */
  stop(): void {
    this.#steps.length = 0
  }

  /** The faults for this request, using up a step unless permanent; undefined when it has nothing for it. */
  take(request: RequestRecord): readonly Fault[] | undefined {
    if (this.#steps.length === 0 || !matches(this.#match, request)) return undefined
    this.#played++
    const steps = this.#isPermanent ? this.#steps : [this.#steps.shift() ?? []]
    return steps.flatMap((step) => (typeof step === 'function' ? step(request) : step))
  }
}

function faultOf<Kind extends Fault['kind']>(
  faults: readonly Fault[],
  kind: Kind,
): Extract<Fault, { kind: Kind }> | undefined {
  return faults.find((each): each is Extract<Fault, { kind: Kind }> => each.kind === kind)
}

// --------------------------------------------------------------------------------------------------------- server

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly body: Content
  /** Where `body` begins within the whole it is a part of; default 0. */
  readonly offset?: number
  /** Size of that whole; default that of `body`. */
  readonly wholeSize?: number
}

export interface ServerTls {
  readonly cert: string
  readonly key: string
  /** Ask for a client certificate of this authority and refuse who shows none. */
  readonly clientCa?: string
}

export interface ServerOptions {
  readonly tls?: ServerTls
  /** The host in `url`: `localhost` to be reached by name. Default `127.0.0.1`. */
  readonly hostname?: string
}

/** `serve` as usual; `hold` accepts and stays silent, TLS handshake included; `reset` accepts and sends RST. */
export type AcceptMode = 'serve' | 'hold' | 'reset'

const PIECE_BYTES = 128 * 1024
const MAX_REQUEST_BYTES = 1024 * 1024

export abstract class ScriptedServer {
  /** Every request, in order of arrival. */
  readonly requests: RequestRecord[] = []
  acceptMode: AcceptMode = 'serve'
  readonly #options: ServerOptions
  readonly #scripts: FaultScript[] = []
  readonly #news = new EventEmitter().setMaxListeners(0)
  readonly #sockets = new Set<net.Socket>()
  readonly #conversations = new Set<Promise<void>>()
  #listener: net.Server | undefined
  #port = 0
  #accepted = 0

  constructor(options: ServerOptions = {}) {
    this.#options = options
  }

  /** The right answer. `range` is the Range header to honour, which a fault may have hidden. */
  protected abstract answer(request: RequestRecord, range: string | undefined): Reply
  /** What the path names; called before any fault is chosen. */
  protected abstract classify(path: string): Pick<RequestRecord, 'kind' | 'repository' | 'reference'>

  get port(): number {
    return this.#port
  }

  /** `host:port` as in `url`. */
  get host(): string {
    return `${this.#options.hostname ?? '127.0.0.1'}:${this.#port}`
  }

  /** Origin without a slash at the end. */
  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${this.host}`
  }

  /** Connections accepted since the start; the keep-alive of a client shows here. */
  get acceptedConnections(): number {
    return this.#accepted
  }

  get openConnections(): number {
    return this.#sockets.size
  }

  /** Each step acts on one matching request, in order. Of several such scripts the first with a step left is used. */
  script(match: Match, ...steps: readonly Step[]): FaultScript {
    return this.#add(new FaultScript(match, steps, { isPermanent: false }))
  }

  /** All of `faults` act on every matching request, after (and so weaker than) a step of `script`. */
  scriptAlways(match: Match, ...faults: readonly Step[]): FaultScript {
    return this.#add(new FaultScript(match, faults, { isPermanent: true }))
  }

  clearScripts(): void {
    for (const script of this.#scripts.splice(0)) script.stop()
  }

  matching(match: Match = {}): readonly RequestRecord[] {
    return this.requests.filter((request) => matches(match, request))
  }

  count(match: Match = {}): number {
    return this.matching(match).length
  }

  /** Body bytes of the matching answers. */
  bytesSent(match: Match = {}): number {
    return this.matching(match).reduce((sum, request) => sum + request.bytesSent, 0)
  }

  clearRequests(): void {
    this.requests.length = 0
  }

  /** Waits until `count` matching requests have arrived; rejects after 5 s unless given another signal. */
  async arrived(match: Match, count = 1, signal = AbortSignal.timeout(5000)): Promise<readonly RequestRecord[]> {
    return await this.#watch(match, () => true, { count, signal })
  }

  /** As `arrived`, until their answers are over, one way or the other. */
  async ended(match: Match, count = 1, signal = AbortSignal.timeout(5000)): Promise<readonly RequestRecord[]> {
    return await this.#watch(match, ({ endedAt }) => endedAt !== undefined, { count, signal })
  }

  /** Listens on a free port; after `close`, on the same port again. */
  async listen(): Promise<void> {
    if (this.#listener !== undefined) throw new Error(`${this.url} is listening already`)
    const secure = this.#options.tls && this.#secureServer(this.#options.tls)
    const listener = net.createServer({ noDelay: true }, (raw) => this.#accept(raw, secure))
    listener.listen(this.#port, '127.0.0.1')
    await once(listener, 'listening')
    const address = listener.address()
    if (address === null || typeof address === 'string') throw new Error('a TCP listener has a port')
    this.#port = address.port
    this.#listener = listener
  }

  /** Stops listening and destroys every connection: the upstream is gone. Closing twice is allowed. */
  async close(): Promise<void> {
    const listener = this.#listener
    this.#listener = undefined
    if (listener === undefined) return
    const closed = once(listener, 'close')
    listener.close()
    this.dropConnections()
    await closed
    await Promise.all(this.#conversations)
  }

  async restart(): Promise<void> {
    await this.close()
    await this.listen()
  }

  /** Destroys every connection and goes on listening. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #add(script: FaultScript): FaultScript {
    this.#scripts.push(script)
    return script
  }

  async #watch(
    match: Match,
    isSeen: (request: RequestRecord) => boolean,
    { count, signal }: { readonly count: number; readonly signal: AbortSignal },
  ): Promise<readonly RequestRecord[]> {
    for (;;) {
      const seen = this.matching(match).filter(isSeen)
      if (seen.length >= count) return seen
      await once(this.#news, 'news', { signal }).catch((cause: unknown) => {
        throw new Error(`${this.url} saw ${seen.length} of ${count} requests for ${inspect(match)}`, { cause })
      })
    }
  }

  #accept(raw: net.Socket, secure: tls.Server | undefined): void {
    this.#accepted++
    this.#sockets.add(raw)
    raw.on('close', () => this.#sockets.delete(raw))
    // Errors of a peer are the test's own doing; what follows from them is seen as `close`.
    raw.on('error', () => undefined)
    if (this.acceptMode === 'reset') raw.resetAndDestroy()
    if (this.acceptMode !== 'serve') return
    if (secure === undefined) this.#begin(new Connection(raw, raw, this.#accepted))
    else secure.emit('connection', raw)
  }

  /** Never listens: it is handed sockets we have accepted, so that we keep the one an RST can be sent from. */
  #secureServer({ cert, key, clientCa }: ServerTls): tls.Server {
    const client = clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true }
    const server = tls.createServer({ cert, key, ...client }, (socket) => {
      const raw = [...this.#sockets].find(({ remotePort }) => remotePort === socket.remotePort)
      if (raw === undefined) return
      socket.on('error', () => undefined)
      this.#begin(new Connection(raw, socket, this.#accepted))
    })
    return server.on('tlsClientError', () => undefined)
  }

  #begin(connection: Connection): void {
    const conversation = this.#converse(connection).finally(() => this.#conversations.delete(conversation))
    this.#conversations.add(conversation)
  }

  async #converse(connection: Connection): Promise<void> {
    try {
      for (let head = await connection.nextRequest(); head !== undefined; head = await connection.nextRequest()) {
        const keepsAlive = await this.#respond(connection, head)
        if (!keepsAlive) return connection.end()
      }
      connection.end()
    } catch (error) {
      if (!connection.isClosed) throw error
    }
  }

  /** Answers one request; true when the connection may carry another. */
  async #respond(connection: Connection, head: RequestHead): Promise<boolean> {
    const { request, faults } = this.#record(connection, head)
    try {
      return await this.#send(connection, request, faults)
    } catch (error) {
      if (!connection.isClosed) throw error
      // Our own reset and cut leave through here too; theirs is the absence of ours.
      request.aborted = !connection.wasEndedHere
      return false
    } finally {
      request.endedAt = timeNow()
      this.#news.emit('news')
    }
  }

  #record(
    connection: Connection,
    head: RequestHead,
  ): { readonly request: RequestRecord; readonly faults: readonly Fault[] } {
    const headers = joinHeaders(head.headers)
    const url = URL.parse(head.target.startsWith('/') ? `http://${this.host}${head.target}` : head.target)
    const path = url?.pathname ?? head.target
    const kinds: Fault['kind'][] = []
    const request: RequestRecord = {
      at: timeNow(),
      method: head.method,
      url: head.target,
      path,
      query: url?.searchParams ?? new URLSearchParams(),
      headers,
      rawHeaders: head.headers,
      body: head.body,
      connection: connection.number,
      clientName: connection.clientName,
      range: headers['range'],
      ...this.classify(path),
      faults: kinds,
      offset: 0,
      status: 0,
      bytesSent: 0,
      firstByteAt: undefined,
      endedAt: undefined,
      aborted: false,
    }
    const faults = this.#faultsFor(request)
    kinds.push(...faults.map(({ kind }) => kind))
    this.requests.push(request)
    this.#news.emit('news')
    return { request, faults }
  }

  #faultsFor(request: RequestRecord): readonly Fault[] {
    const faults: Fault[] = []
    for (const script of this.#scripts.filter(({ isPermanent }) => !isPermanent)) {
      const taken = script.take(request)
      if (taken === undefined) continue
      faults.push(...taken)
      break
    }
    for (const script of this.#scripts.filter(({ isPermanent }) => isPermanent))
      faults.push(...(script.take(request) ?? []))
    return faults
  }

  async #send(connection: Connection, request: RequestRecord, faults: readonly Fault[]): Promise<boolean> {
    const delay = faultOf(faults, 'delay')
    if (delay !== undefined) await connection.wait(delay.until)
    const turns = turningPoints(faults)
    for (const turn of turns.filter(({ after }) => after === BEFORE_HEADERS)) await connection.turn(turn)
    const raw = faultOf(faults, 'raw')
    if (raw !== undefined) {
      request.firstByteAt = timeNow()
      await connection.write(raw.text)
      return false
    }
    const interim = faultOf(faults, 'interim')
    if (interim !== undefined) await connection.write(headText(interim.status, Object.entries(interim.headers)))

    const range = faultOf(faults, 'ignoreRange') === undefined ? request.range : undefined
    const right = faultOf(faults, 'reply')?.reply ?? this.answer(request, range)
    const sent = applyToReply(right, faults, request)
    request.status = sent.reply.status
    request.offset = sent.reply.offset ?? 0
    request.firstByteAt = timeNow()
    const { status, headers } = sent.reply
    const closes = sent.endsWithConnection || request.headers['connection']?.toLowerCase() === 'close'
    await connection.write(headText(status, closes ? [...headers, ['Connection', 'close']] : headers))
    await sendBody(
      connection,
      request,
      sent,
      turns.filter(({ after }) => after !== BEFORE_HEADERS),
      faults,
    )
    const unsolicited = faultOf(faults, 'unsolicited')
    if (unsolicited !== undefined) void connection.writeLater(unsolicited.text, unsolicited.afterMs)
    return !closes
  }
}

// ------------------------------------------------------------------------------------------------ writing a reply

interface SentReply {
  readonly reply: Omit<Reply, 'headers'> & {
    readonly headers: readonly (readonly [string, string | readonly string[]])[]
  }
  readonly isChunked: boolean
  readonly endsWithConnection: boolean
}

/** The reply as the faults leave it, with the headers that frame it. */
function applyToReply(right: Reply, faults: readonly Fault[], request: RequestRecord): SentReply {
  let { body } = right
  const headers = new Map(Object.entries(right.headers).map((entry) => [entry[0].toLowerCase(), entry]))
  const put = (name: string, value: string | undefined): void => {
    headers.delete(name.toLowerCase())
    if (value !== undefined) headers.set(name.toLowerCase(), [name, value])
  }
  for (const each of faults) if (each.kind === 'corrupt') body = corrupted(body, right, each.offset)
  const resize = faultOf(faults, 'resize')
  if (resize !== undefined) body = resized(body, resize.bytes)
  const gzip = faultOf(faults, 'gzip')
  if (gzip !== undefined && (!gzip.onlyIfAccepted || /\bgzip\b/.test(request.headers['accept-encoding'] ?? ''))) {
    body = contentOf(gzipSync(bytesOf(body)))
    put('Content-Encoding', 'gzip')
  }
  const isChunked = faultOf(faults, 'chunked') !== undefined
  const isCloseDelimited = faultOf(faults, 'closeDelimited') !== undefined
  const lie = faultOf(faults, 'lieLength')?.bytes ?? 0
  if (isChunked) put('Transfer-Encoding', 'chunked')
  else if (!isCloseDelimited && right.status !== 304) put('Content-Length', String(body.size + lie))
  for (const each of faults) if (each.kind === 'header') put(each.name, each.value)
  const offset = right.offset ?? 0
  return {
    reply: { status: right.status, headers: [...headers.values()], body, offset },
    isChunked,
    endsWithConnection: isCloseDelimited || lie > 0,
  }
}

function corrupted(body: Content, whole: Pick<Reply, 'offset' | 'wholeSize'>, offset: number): Content {
  const wanted = offset < 0 ? (whole.wholeSize ?? body.size) + offset : offset
  const at = wanted - (whole.offset ?? 0)
  const slice = (from: number, to: number): Uint8Array => {
    const bytes = body.slice(from, to)
    if (at < from || at >= to) return bytes
    const flipped = Uint8Array.from(bytes)
    flipped[at - from] = (bytes[at - from] ?? 0) ^ 0xff
    return flipped
  }
  return { size: body.size, slice }
}

function resized(body: Content, by: number): Content {
  const size = Math.max(0, body.size + by)
  const slice = (from: number, to: number): Uint8Array => {
    const bytes = Buffer.alloc(to - from)
    if (from < body.size) bytes.set(body.slice(from, Math.min(to, body.size)))
    return bytes
  }
  return { size, slice }
}

/** A place in the body where something happens. */
type Turn = Extract<Fault, { kind: 'stall' | 'reset' | 'cut' }>

function turningPoints(faults: readonly Fault[]): readonly Turn[] {
  const turns = faults.filter((each): each is Turn => ['stall', 'reset', 'cut'].includes(each.kind))
  return turns.toSorted((one, other) => one.after - other.after)
}

/**
 * Sends the body in pieces that end at every turn. A turn past the end, and every turn of a HEAD, comes after the last
 * byte.
 */
async function sendBody(
  connection: Connection,
  request: RequestRecord,
  { reply: { body, status }, isChunked }: SentReply,
  turns: readonly Turn[],
  faults: readonly Fault[],
): Promise<void> {
  const size = request.method === 'HEAD' || status === 204 || status === 304 ? 0 : body.size
  const slice = faultOf(faults, 'slice')?.bytes
  const rate = faultOf(faults, 'rate')?.bytesPerSecond
  // At a given rate a piece is what 20 ms allow, so that the flow is even and not in bursts.
  const piece = Math.min(slice ?? PIECE_BYTES, rate === undefined ? PIECE_BYTES : Math.max(1, Math.floor(rate / 50)))
  const startedAt = timeNow()
  const left = [...turns]
  for (let from = 0; ;) {
    for (let turn = left[0]; turn !== undefined && (turn.after <= from || from === size); turn = left[0]) {
      left.shift()
      await connection.turn(turn)
    }
    if (from === size) break
    const to = Math.min(size, from + piece, left[0]?.after ?? size)
    if (rate !== undefined) await connection.wait(startedAt + (from / rate) * 1000 - timeNow())
    const bytes = body.slice(from, to)
    await connection.write(isChunked ? chunkOf(bytes) : bytes)
    request.bytesSent += to - from
    // A turn of the event loop, so that the kernel sees separate writes.
    if (slice !== undefined) await nextTurn()
    from = to
  }
  if (isChunked && request.method !== 'HEAD') await connection.write('0\r\n\r\n')
}

function chunkOf(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

function headText(status: number, headers: readonly (readonly [string, string | readonly string[]])[]): string {
  const lines = headers.flatMap(([name, values]) => [values].flat().map((value) => `${name}: ${value}\r\n`))
  return `HTTP/1.1 ${status} Scripted\r\n${lines.join('')}\r\n`
}

// ----------------------------------------------------------------------------------------------------- connection

interface RequestHead {
  readonly method: string
  readonly target: string
  readonly headers: readonly Header[]
  readonly body: string
}

/** One TCP connection and what is known of its end. Every wait ends when the peer, or the test, closes it. */
class Connection {
  readonly number: number
  readonly #raw: net.Socket
  readonly #socket: net.Socket
  readonly #closed = new AbortController()
  readonly #news = new EventEmitter()
  #received: Buffer = Buffer.alloc(0)
  #wasEndedHere = false

  constructor(raw: net.Socket, socket: net.Socket, number: number) {
    this.number = number
    this.#raw = raw
    this.#socket = socket
    raw.once('close', () => this.#closed.abort())
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#news.emit('data')
    })
  }

  get isClosed(): boolean {
    return this.#closed.signal.aborted || this.#wasEndedHere
  }

  get wasEndedHere(): boolean {
    return this.#wasEndedHere
  }

  get clientName(): string | undefined {
    if (!(this.#socket instanceof tls.TLSSocket)) return undefined
    const name = this.#socket.getPeerCertificate().subject?.CN
    return typeof name === 'string' ? name : undefined
  }

  /** The next request once it is whole; undefined when the peer sends no more. */
  async nextRequest(): Promise<RequestHead | undefined> {
    for (;;) {
      const parsed = parseRequest(this.#received)
      if (parsed !== undefined) {
        this.#received = this.#received.subarray(parsed.length)
        return parsed.head
      }
      // A TLS hello to a plain server is refused at once, as by any other server, and not waited on.
      if (!/^[A-Z]*$/.test(this.#received.toString('latin1', 0, 3))) return undefined
      if (this.#received.length > MAX_REQUEST_BYTES) throw new Error('a request of more than 1 MiB')
      try {
        await once(this.#news, 'data', { signal: this.#closed.signal })
      } catch (error) {
        if (this.isClosed) return undefined
        throw error
      }
    }
  }

  /** Resolves when the kernel has taken the bytes. */
  async write(bytes: Uint8Array | string): Promise<void> {
    this.#closed.signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#socket.write(bytes, (error) => {
      // The peer may be gone before the socket says so.
      if (error) this.#closed.abort()
      if (error) reject(error)
      else resolve()
    })
    await this.#orClosed(promise)
  }

  async writeLater(bytes: string, afterMs: number): Promise<void> {
    await sleep(afterMs, undefined, { ref: false })
    if (!this.isClosed) this.#socket.write(bytes)
  }

  async wait(until: number | Promise<unknown>): Promise<void> {
    const { signal } = this.#closed
    if (typeof until !== 'number') await this.#orClosed(until)
    else if (until > 0) await sleep(until, undefined, { signal })
  }

  /** Does what a turn says; throws when that ends the connection. */
  async turn(turn: Turn): Promise<void> {
    if (turn.kind === 'stall') return await this.#orClosed(turn.until ?? new Promise(() => undefined))
    if (turn.kind === 'cut') {
      this.#wasEndedHere = true
      this.#socket.end()
    } else {
      // An RST discards what is still queued here: megabytes, when the peer is behind. 10 ms let a reading peer have it.
      await this.wait(10)
      this.#wasEndedHere = true
      this.#raw.resetAndDestroy()
    }
    throw new Error(`the script says ${turn.kind}`)
  }

  end(): void {
    this.#socket.end()
  }

  async #orClosed(promise: Promise<unknown>): Promise<void> {
    const { signal } = this.#closed
    signal.throwIfAborted()
    const { promise: closed, reject } = Promise.withResolvers<never>()
    const onAbort = (): void => reject(new Error('the connection is closed'))
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await Promise.race([promise, closed])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }
}

/** One request off the front of `received`: undefined while it is incomplete. Bodies by Content-Length only. */
function parseRequest(received: Buffer): { readonly head: RequestHead; readonly length: number } | undefined {
  const headLength = received.indexOf('\r\n\r\n')
  if (headLength < 0) return undefined
  const [requestLine = '', ...lines] = received.toString('latin1', 0, headLength).split('\r\n')
  const [method = '', target = ''] = requestLine.split(' ')
  const headers = lines.map((line): Header => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).trim()]
  })
  const bodyFrom = headLength + 4
  const bodyTo = bodyFrom + Number(joinHeaders(headers)['content-length'] ?? 0)
  if (received.length < bodyTo) return undefined
  return { head: { method, target, headers, body: received.toString('utf8', bodyFrom, bodyTo) }, length: bodyTo }
}

function joinHeaders(headers: readonly Header[]): Readonly<Record<string, string>> {
  const joined: Record<string, string> = {}
  for (const [name, value] of headers) {
    const key = name.toLowerCase()
    joined[key] = joined[key] === undefined ? value : `${joined[key]}, ${value}`
  }
  return joined
}

function timeNow(): number {
  return performance.timeOrigin + performance.now()
}
