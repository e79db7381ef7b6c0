// The light client, a program of its own: streams one path, or pulls images as containerd does. It counts and drops bytes;
// only a pass that is not timed hashes them.

import { createHash } from 'node:crypto'
import { MANIFEST_ACCEPT } from '../src/oci/media-types.ts'
import { answerParent } from './child.ts'
import type { Image, Part } from './image.ts'
import { type Address, LightConnection, type LightReply, makeReadBuffer } from './light-connection.ts'

/** `connections` streams at once, each taking the path `repeats` times on one connection. */
export interface StreamJob {
  readonly kind: 'stream'
  readonly address: Address
  readonly path: string
  readonly bytes: number
  readonly connections: number
  readonly repeats: number
}

/** `clients` clients at once pull one image: HEAD by tag, manifest by digest, then its parts over a few connections. */
export interface PullJob {
  readonly kind: 'pull'
  readonly address: Address
  readonly image: Image
  readonly clients: number
  /** Connections of each client. containerd takes three. */
  readonly connections: number
  /** Checks every body against its digest. */
  readonly hash: boolean
}

export type PullerJob = StreamJob | PullJob

export interface PullerReport {
  readonly wallMs: number
  readonly bytes: number
  /** The slowest of all: milliseconds from its request to the first byte of a blob. */
  readonly firstByteMs: number
  /** The slowest of all: milliseconds from a client's start to the end of its manifest. */
  readonly manifestMs: number
  /** Processor seconds of this client: near the wall time, it and not the server is the limit. */
  readonly clientSeconds: number
  readonly failed: number
  /** The first failures, for people. */
  readonly failures: readonly string[]
}

const KEPT_FAILURES = 5

class Tally {
  readonly #startedAt = performance.now()
  readonly #usage = process.cpuUsage()
  readonly #failures: string[] = []
  #failed = 0
  #bytes = 0
  #firstByteMs = 0
  #manifestMs = 0

  addBlob(reply: LightReply): void {
    this.#bytes += reply.bytes
    this.#firstByteMs = Math.max(this.#firstByteMs, reply.firstByteMs)
  }

  /** A client has its manifest; all clients start with the tally. */
  addManifest(reply: LightReply): void {
    this.#bytes += reply.bytes
    this.#manifestMs = Math.max(this.#manifestMs, performance.now() - this.#startedAt)
  }

  addFailure(error: unknown): void {
    this.#failed++
    if (this.#failures.length < KEPT_FAILURES)
      this.#failures.push(error instanceof Error ? error.message : String(error))
  }

  report(): PullerReport {
    const { user, system } = process.cpuUsage(this.#usage)
    return {
      wallMs: performance.now() - this.#startedAt,
      bytes: this.#bytes,
      firstByteMs: this.#firstByteMs,
      manifestMs: this.#manifestMs,
      clientSeconds: (user + system) / 1e6,
      failed: this.#failed,
      failures: this.#failures,
    }
  }
}

class Puller {
  readonly #buffer = makeReadBuffer()

  async run(job: PullerJob): Promise<PullerReport> {
    const tally = new Tally()
    const count = job.kind === 'stream' ? job.connections : job.clients
    const work = job.kind === 'stream' ? () => this.#stream(job, tally) : () => this.#pull(job, tally)
    const runs = Array.from({ length: count }, () => work().catch((error: unknown) => tally.addFailure(error)))
    await Promise.all(runs)
    return tally.report()
  }

  async #stream(job: StreamJob, tally: Tally): Promise<void> {
    using connection = new LightConnection(job.address, this.#buffer)
    for (let left = job.repeats; left > 0; left--) {
      const reply = await connection.send({ method: 'GET', path: job.path })
      expectWhole(job.path, reply, job.bytes)
      tally.addBlob(reply)
    }
  }

  async #pull(job: PullJob, tally: Tally): Promise<void> {
    const { image } = job
    using first = new LightConnection(job.address, this.#buffer)
    const manifests = `/v2/${image.repository}/manifests`
    const resolved = await first.send({ method: 'HEAD', path: `${manifests}/${image.tag}`, accept: MANIFEST_ACCEPT })
    if (resolved.status !== 200) throw new Error(`HEAD ${manifests}/${image.tag}: ${resolved.status}`)
    tally.addManifest(await this.#take(first, `${manifests}/${image.manifest.digest}`, image.manifest, job.hash))
    const queue = [image.config, ...image.layers]
    const takeAll = async (connection: LightConnection): Promise<void> => {
      for (let part = queue.shift(); part !== undefined; part = queue.shift()) {
        tally.addBlob(await this.#take(connection, `/v2/${image.repository}/blobs/${part.digest}`, part, job.hash))
      }
    }
    const more = Array.from({ length: job.connections - 1 }, async () => {
      using connection = new LightConnection(job.address, this.#buffer)
      await takeAll(connection)
    })
    // All have ended before the connections close: a failure of one is told as itself, not as what it does to the others.
    const ended = await Promise.allSettled([takeAll(first), ...more])
    const failed = ended.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  async #take(connection: LightConnection, path: string, part: Part, isHashed: boolean): Promise<LightReply> {
    const hash = createHash('sha256')
    const sink = isHashed ? { sink: (piece: Uint8Array) => void hash.update(piece) } : {}
    const reply = await connection.send({ method: 'GET', path, accept: MANIFEST_ACCEPT, ...sink })
    expectWhole(path, reply, part.size)
    if (isHashed && `sha256:${hash.digest('hex')}` !== part.digest) throw new Error(`GET ${path}: wrong bytes`)
    return reply
  }
}

function expectWhole(path: string, reply: LightReply, bytes: number): void {
  if (reply.status === 200 && reply.bytes === bytes) return
  throw new Error(`GET ${path}: ${reply.status} with ${reply.bytes} bytes, expected 200 with ${bytes}`)
}

function isJob(value: unknown): value is PullerJob {
  return (
    typeof value === 'object' && value !== null && 'kind' in value && ['stream', 'pull'].includes(String(value.kind))
  )
}

if (import.meta.main) {
  const puller = new Puller()
  answerParent(isJob, (job) => puller.run(job))
}
