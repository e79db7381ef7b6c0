/**
 * Hashes files off the loop: one worker thread for the whole process reads them back slice by slice. The thread starts
 * with the first job or before, keeps the process alive only while somebody waits for a digest, and is replaced after a
 * crash.
 */
import { Worker } from 'node:worker_threads'
import { GatewayError } from '../../errors.ts'
import { parseDigest, type Digest, type DigestAlgorithm } from '../../oci/digest.ts'
import type { HashReply, HashRequest } from './hash-worker.ts'

export interface HashJobOptions {
  readonly path: string
  /** Inode the path must lead to, so that another file of that name is never hashed for this one. */
  readonly inode: number
  readonly algorithm: DigestAlgorithm
}

export interface HashJob {
  /** Bytes `[0, front)` are final and may be read. Never goes back. */
  advance(front: number): void
  /** Resolves to the digest of the first `size` bytes, and ends the job; called once. Rejects with `STORE_FAILED`. */
  finish(size: number): Promise<Digest>
  /** Ends the job; a pending `finish` rejects. Idempotent. */
  cancel(): void
}

interface Pending {
  readonly path: string
  readonly result: PromiseWithResolvers<Digest>
  isAwaited: boolean
}

export interface HasherOptions {
  /** Module the thread runs. Default: `hash-worker.ts`. */
  readonly script?: URL
}

export class Hasher implements AsyncDisposable {
  readonly #script: URL
  readonly #pending = new Map<number, Pending>()
  #worker: Worker | undefined
  #lastId = 0
  #isClosed = false

  constructor(options: HasherOptions = {}) {
    this.#script = options.script ?? new URL('./hash-worker.ts', import.meta.url)
  }

  /** Starts the thread now: the first small body would wait for that, 50 ms at best and a second on a busy machine. */
  warm(): void {
    if (!this.#isClosed) this.#worker ??= this.#spawn()
  }

  start(options: HashJobOptions): HashJob {
    const id = ++this.#lastId
    const pending: Pending = { path: options.path, result: Promise.withResolvers<Digest>(), isAwaited: false }
    pending.result.promise.catch(() => undefined)
    this.#pending.set(id, pending)
    if (this.#isClosed) this.#fail(id, 'the store is closed')
    else this.#post({ kind: 'start', id, ...options })
    let front = 0
    return {
      advance: (next) => {
        if (next <= front) return
        front = next
        this.#postFor(id, { kind: 'advance', id, front })
      },
      finish: (size) => {
        if (pending.isAwaited) return Promise.reject(failure(pending.path, 'its digest was asked for already'))
        this.#await(pending)
        this.#postFor(id, { kind: 'finish', id, size })
        return pending.result.promise
      },
      cancel: () => {
        this.#postFor(id, { kind: 'cancel', id })
        this.#fail(id, 'given up')
      },
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const worker = this.#worker
    this.#worker = undefined
    this.#failAll('the store is closed')
    await worker?.terminate()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #postFor(id: number, request: HashRequest): void {
    if (this.#pending.has(id)) this.#post(request)
  }

  #post(request: HashRequest): void {
    this.#worker ??= this.#spawn()
    this.#worker.postMessage(request)
  }

  #spawn(): Worker {
    const worker = new Worker(this.#script, { name: 'hash', execArgv: [] })
    worker.on('message', (reply: HashReply) => this.#settle(reply))
    worker.on('error', (error: unknown) =>
      this.#onCrash(worker, error instanceof Error ? error.message : String(error)),
    )
    worker.on('exit', (code) => this.#onCrash(worker, `exit code ${code}`))
    worker.unref()
    return worker
  }

  #settle(reply: HashReply): void {
    const digest = reply.kind === 'digest' ? parseDigest(reply.digest) : undefined
    if (digest === undefined)
      return this.#fail(reply.id, reply.kind === 'failed' ? reply.reason : 'no digest came back')
    this.#take(reply.id)?.result.resolve(digest)
  }

  #onCrash(worker: Worker, reason: string): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    this.#failAll(`the hash thread ended (${reason}); the next body starts a new one`)
  }

  #failAll(reason: string): void {
    for (const id of this.#pending.keys()) this.#fail(id, reason)
  }

  #fail(id: number, reason: string): void {
    const pending = this.#take(id)
    pending?.result.reject(failure(pending.path, reason))
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    this.#keepAlive()
    return pending
  }

  #await(pending: Pending): void {
    pending.isAwaited = true
    this.#keepAlive()
  }

  #keepAlive(): void {
    if (this.#pending.values().some(({ isAwaited }) => isAwaited)) this.#worker?.ref()
    else this.#worker?.unref()
  }
}

function failure(path: string, reason: string): GatewayError {
  return new GatewayError('STORE_FAILED', `hash ${path}: ${reason}`)
}
