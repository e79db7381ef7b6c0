// Run as a child: many clients that cost little. Each opens a few connections, as containerd does, asks for the manifest
// and then for every blob; it counts bytes, and hashes them only when told to.

import { createHash, type Hash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { answerParent, timeNow } from './child.ts'
import type { ServedBlob } from './scripted-upstream.ts'

export interface PullQuestion {
  /** host:port */
  readonly gateway: string
  readonly repository: string
  readonly tag: string
  readonly manifest: ServedBlob
  readonly blobs: readonly ServedBlob[]
  readonly clients: number
  /** Connections of one client. */
  readonly connections: number
  readonly isHashed: boolean
}

export interface BlobPull {
  readonly digest: string
  /** Epoch ms, as all times here. */
  readonly askedAt: number
  /** Of the body. */
  readonly firstByteAt: number
}

export interface PullAnswer {
  readonly pulls: readonly BlobPull[]
  readonly ms: number
  readonly bytes: number
  /** What was not as it should be, the first ten. */
  readonly problems: readonly string[]
}

interface Received {
  readonly status: number
  readonly bytes: number
  readonly digest: string | undefined
  readonly askedAt: number
  readonly firstByteAt: number
}

/** One connection, one request at a time; the body goes through a buffer that all connections share. */
class LightConnection {
  readonly #host: string
  readonly #socket: Socket
  readonly #isHashed: boolean
  #head = ''
  #status = 0
  #left = -1
  #bytes = 0
  #hash: Hash | undefined
  #askedAt = 0
  #firstByteAt = 0
  #pending: PromiseWithResolvers<Received> | undefined

  constructor(host: string, isHashed: boolean, buffer: Uint8Array) {
    this.#host = host
    this.#isHashed = isHashed
    const [hostname, port] = host.split(':')
    const onread = {
      buffer,
      callback: (count: number, filled: Uint8Array) => {
        this.#receive(filled.subarray(0, count))
        return true
      },
    }
    this.#socket = connect({ host: hostname ?? '', port: Number(port), onread })
    this.#socket.on('error', (error) => this.#pending?.reject(error))
    this.#socket.on('close', () => this.#pending?.reject(new Error('the connection ended')))
  }

  get(path: string, accept: string): Promise<Received> {
    this.#head = ''
    this.#left = -1
    this.#bytes = 0
    this.#hash = this.#isHashed ? createHash('sha256') : undefined
    this.#askedAt = timeNow()
    this.#pending = Promise.withResolvers()
    this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: ${this.#host}\r\nAccept: ${accept}\r\n\r\n`)
    return this.#pending.promise
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Uint8Array): void {
    let body = chunk
    if (this.#left < 0) {
      const text = Buffer.from(chunk).toString('latin1')
      const before = this.#head.length
      this.#head += text
      const end = this.#head.indexOf('\r\n\r\n')
      if (end < 0) return
      this.#status = Number(this.#head.slice(9, 12))
      this.#left = Number(/^content-length: *(\d+)/im.exec(this.#head.slice(0, end))?.[1] ?? NaN)
      if (Number.isNaN(this.#left)) {
        this.#pending?.reject(new Error(`no length: ${this.#head.slice(0, end)}`))
        return
      }
      body = chunk.subarray(end + 4 - before)
    }
    if (body.length > 0) {
      if (this.#bytes === 0) this.#firstByteAt = timeNow()
      this.#bytes += body.length
      this.#left -= body.length
      this.#hash?.update(body)
    }
    if (this.#left > 0) return
    this.#pending?.resolve({
      status: this.#status,
      bytes: this.#bytes,
      digest: this.#hash && `sha256:${this.#hash.digest('hex')}`,
      askedAt: this.#askedAt,
      firstByteAt: this.#firstByteAt,
    })
  }
}

const BUFFER_BYTES = 256 * 1024
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'

async function pull(question: PullQuestion): Promise<PullAnswer> {
  const { gateway, repository, tag, manifest, blobs } = question
  const buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  const pulls: BlobPull[] = []
  const problems: string[] = []
  let bytes = 0
  const check = (received: Received, wanted: ServedBlob): void => {
    bytes += received.bytes
    const isRight = received.digest === undefined || received.digest === wanted.digest
    if (received.status === 200 && received.bytes === wanted.size && isRight) return
    problems.push(`${wanted.digest}: ${received.status}, ${received.bytes} of ${wanted.size} bytes, ${received.digest}`)
  }
  const client = async (): Promise<void> => {
    const connections = Array.from(
      { length: question.connections },
      () => new LightConnection(gateway, question.isHashed, buffer),
    )
    const left = [...blobs]
    const [first] = connections
    if (first !== undefined) check(await first.get(`/v2/${repository}/manifests/${tag}`, MANIFEST_TYPE), manifest)
    const work = async (connection: LightConnection): Promise<void> => {
      for (let blob = left.shift(); blob !== undefined; blob = left.shift()) {
        const received = await connection.get(`/v2/${repository}/blobs/${blob.digest}`, '*/*')
        check(received, blob)
        pulls.push({ digest: blob.digest, askedAt: received.askedAt, firstByteAt: received.firstByteAt })
      }
      connection.close()
    }
    await Promise.all(connections.map(work))
  }
  const startedAt = performance.now()
  const report = (error: unknown): void => void problems.push(String(error))
  await Promise.all(Array.from({ length: question.clients }, () => client().catch(report)))
  return { pulls, ms: performance.now() - startedAt, bytes, problems: problems.slice(0, 10) }
}

answerParent<PullQuestion, PullAnswer>(pull)
