/** Passwords against bcrypt hashes, a few at a time in threads of their own, and a bounded line in front of them. */
import { Worker } from 'node:worker_threads'
import { Limiter } from '../async/limiter.ts'
import { GatewayError } from '../errors.ts'
import type { CheckReply, CheckRequest } from './bcrypt-worker.ts'

export interface BcryptThreadsOptions {
  /** Checks at a time. Default 2. */
  readonly threads?: number
  /** Checks that may wait; one more is OVERLOADED. Default 128, about 7 s of waiting at cost 10. */
  readonly queue?: number
}

/** Threads start with the first check and do not keep the process alive. `close` ends them. */
export class BcryptThreads implements AsyncDisposable {
  readonly #limiter: Limiter
  readonly #idle: Worker[] = []
  readonly #all = new Set<Worker>()
  readonly #script = new URL('./bcrypt-worker.ts', import.meta.url)
  #isClosed = false

  constructor({ threads = 2, queue = 128 }: BcryptThreadsOptions = {}) {
    this.#limiter = new Limiter({ slots: threads, queue, what: 'checking passwords' })
  }

  /** Whether the password is the one of the hash. Rejects with OVERLOADED, or with the signal's reason while waiting. */
  async isRight(request: CheckRequest, signal: AbortSignal): Promise<boolean> {
    using _ = await this.#limiter.acquire(signal)
    if (this.#isClosed) throw new GatewayError('OVERLOADED', 'checking a password: the gateway is stopping')
    const worker = this.#idle.pop() ?? this.#spawn()
    const { isRight } = await this.#ask(worker, request)
    this.#idle.push(worker)
    if (isRight === undefined) throw new GatewayError('CONFIG_INVALID', 'checking a password: bcrypt refused the hash')
    return isRight
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.allSettled([...this.#all].map((worker) => worker.terminate()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #spawn(): Worker {
    const worker = new Worker(this.#script, {
      name: 'bcrypt',
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32 },
    })
    worker.unref()
    this.#all.add(worker)
    worker.once('exit', () => {
      this.#all.delete(worker)
      const at = this.#idle.indexOf(worker)
      if (at !== -1) this.#idle.splice(at, 1)
    })
    // Without a listener of its own an idle thread's error would end the process.
    worker.on('error', () => undefined)
    return worker
  }

  #ask(worker: Worker, request: CheckRequest): Promise<CheckReply> {
    const { promise, resolve, reject } = Promise.withResolvers<CheckReply>()
    const failed = (cause: unknown): void =>
      reject(new GatewayError('OVERLOADED', 'checking a password: the thread ended', { cause }))
    worker.once('message', resolve)
    worker.once('error', failed)
    worker.once('exit', failed)
    worker.postMessage(request)
    return promise.finally(() => {
      worker.off('message', resolve)
      worker.off('error', failed)
      worker.off('exit', failed)
    })
  }
}
