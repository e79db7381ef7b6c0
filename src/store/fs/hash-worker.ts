/**
 * The thread that hashes. Jobs take turns slice by slice, so a body of 1 GiB delays one of 10 kB by a slice, not by
 * itself. It reads synchronously: the thread has nothing else to do, and the loop that serves clients is another one.
 */
import { createHash, type Hash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import { finishDigest, type DigestAlgorithm } from '../../oci/digest.ts'

export type HashRequest =
  | {
      readonly kind: 'start'
      readonly id: number
      readonly path: string
      readonly inode: number
      readonly algorithm: DigestAlgorithm
    }
  | { readonly kind: 'advance'; readonly id: number; readonly front: number }
  | { readonly kind: 'finish'; readonly id: number; readonly size: number }
  | { readonly kind: 'cancel'; readonly id: number }

export type HashReply =
  | { readonly kind: 'digest'; readonly id: number; readonly digest: string }
  | { readonly kind: 'failed'; readonly id: number; readonly reason: string }

interface Job {
  readonly id: number
  readonly algorithm: DigestAlgorithm
  readonly file: number
  readonly hash: Hash
  hashed: number
  front: number
  size: number | undefined
}

/** About a millisecond of work: long enough to be worth a turn, short enough to wait for. */
const SLICE_BYTES = 1024 * 1024

class HashLoop {
  readonly #reply: (reply: HashReply) => void
  readonly #jobs = new Map<number, Job>()
  /** Jobs with bytes to hash, next first. A set: each stands in line once. */
  readonly #line = new Set<Job>()
  readonly #slice = Buffer.allocUnsafeSlow(SLICE_BYTES)
  #isScheduled = false

  constructor(reply: (reply: HashReply) => void) {
    this.#reply = reply
  }

  accept(request: HashRequest): void {
    if (request.kind === 'start') return this.#attempt(request.id, () => this.#open(request))
    const job = this.#jobs.get(request.id)
    if (job === undefined) return
    if (request.kind === 'cancel') return this.#end(job)
    if (request.kind === 'finish') job.size = request.size
    job.front = Math.max(job.front, request.kind === 'finish' ? request.size : request.front)
    this.#queue(job)
  }

  #open(request: HashRequest & { kind: 'start' }): void {
    const file = openSync(request.path, constants.O_RDONLY | constants.O_NOFOLLOW)
    const { id, algorithm } = request
    this.#jobs.set(id, { id, algorithm, file, hash: createHash(algorithm), hashed: 0, front: 0, size: undefined })
    if (fstatSync(file).ino !== request.inode) throw new Error('another file stands under this name')
  }

  #queue(job: Job): void {
    this.#line.add(job)
    if (this.#isScheduled) return
    this.#isScheduled = true
    // A macrotask for each slice, so that requests are heard in between.
    setImmediate(() => this.#turn())
  }

  #turn(): void {
    this.#isScheduled = false
    const [job] = this.#line
    if (job === undefined) return
    this.#line.delete(job)
    this.#attempt(job.id, () => this.#hashSlice(job))
    const [next] = this.#line
    if (next !== undefined) this.#queue(next)
  }

  #hashSlice(job: Job): void {
    const length = Math.min(SLICE_BYTES, job.front - job.hashed)
    if (length > 0) {
      const bytesRead = readSync(job.file, this.#slice, 0, length, job.hashed)
      if (bytesRead === 0) throw new Error(`the file ends at ${job.hashed}, before byte ${job.front}`)
      job.hash.update(this.#slice.subarray(0, bytesRead))
      job.hashed += bytesRead
    }
    if (job.size !== undefined && job.hashed > job.size) throw new Error(`hashed ${job.hashed} of ${job.size} bytes`)
    if (job.hashed === job.size) this.#finish(job)
    else if (job.hashed < job.front) this.#line.add(job)
  }

  #finish(job: Job): void {
    const digest = finishDigest(job.algorithm, job.hash)
    this.#end(job)
    this.#reply({ kind: 'digest', id: job.id, digest })
  }

  #attempt(id: number, step: () => void): void {
    try {
      step()
    } catch (error) {
      const job = this.#jobs.get(id)
      if (job !== undefined) this.#end(job)
      this.#reply({ kind: 'failed', id, reason: error instanceof Error ? error.message : String(error) })
    }
  }

  #end(job: Job): void {
    this.#jobs.delete(job.id)
    this.#line.delete(job)
    closeSync(job.file)
  }
}

// Started by Hasher only; imported for its types elsewhere it does nothing.
const port = parentPort
if (port !== null) {
  const loop = new HashLoop((reply) => port.postMessage(reply))
  port.on('message', (request: HashRequest) => loop.accept(request))
}
