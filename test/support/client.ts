/** A plain HTTP client that shows what came over the wire: no redirects, no decoding, no pool of its own. */
import { createHash } from 'node:crypto'
import { Agent, request, type IncomingHttpHeaders } from 'node:http'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** ms from the request to the first byte of the body, or to the head where there is none. */
  readonly firstByteMs: number
  /** False when the connection ended before the announced length. */
  readonly isComplete: boolean
}

export interface AskOptions {
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly headers?: Readonly<Record<string, string>>
  /** Leaves after so many bytes of the body. */
  readonly leaveAfter?: number
  readonly agent?: Agent
}

/** Asks once; resolves also to a body that was cut short. Rejects when there is no head at all. */
export function ask(url: string, options: AskOptions = {}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const startedAt = performance.now()
  const { method = 'GET', headers = {}, agent = new Agent({ keepAlive: false }), leaveAfter = Infinity } = options
  const outgoing = request(url, { method, headers, agent }, (incoming) => {
    const chunks: Buffer[] = []
    let bytes = 0
    let firstByteMs = method === 'HEAD' ? performance.now() - startedAt : NaN
    const finish = (isComplete: boolean): void =>
      resolve({
        status: incoming.statusCode ?? 0,
        headers: incoming.headers,
        body: Buffer.concat(chunks),
        firstByteMs: Number.isNaN(firstByteMs) ? performance.now() - startedAt : firstByteMs,
        isComplete,
      })
    incoming.on('data', (chunk: Buffer) => {
      if (chunks.length === 0) firstByteMs = performance.now() - startedAt
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes >= leaveAfter) outgoing.destroy()
    })
    incoming.on('end', () => finish(incoming.complete))
    incoming.on('error', () => finish(false))
    incoming.on('close', () => finish(incoming.complete))
  })
  outgoing.on('error', reject)
  outgoing.end()
  return promise
}

export interface Digested {
  readonly status: number
  readonly digest: string
  readonly bytes: number
  readonly firstByteMs: number
  readonly isComplete: boolean
}

/** Asks and hashes the body without keeping it. */
export function askDigest(url: string, options: AskOptions = {}): Promise<Digested> {
  const { promise, resolve, reject } = Promise.withResolvers<Digested>()
  const startedAt = performance.now()
  const outgoing = request(url, { agent: new Agent({ keepAlive: false }), ...options }, (incoming) => {
    const hash = createHash('sha256')
    let bytes = 0
    let firstByteMs = 0
    incoming.on('data', (chunk: Buffer) => {
      if (bytes === 0) firstByteMs = performance.now() - startedAt
      bytes += chunk.length
      hash.update(chunk)
    })
    incoming.on('error', () => undefined)
    incoming.on('close', () =>
      resolve({
        status: incoming.statusCode ?? 0,
        digest: `sha256:${hash.digest('hex')}`,
        bytes,
        firstByteMs,
        isComplete: incoming.complete,
      }),
    )
  })
  outgoing.on('error', reject)
  outgoing.end()
  return promise
}
