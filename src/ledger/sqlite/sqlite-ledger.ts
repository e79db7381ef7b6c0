/**
 * The ledger in SQLite, seen from the main thread: collects writes into batches and asks the worker, which alone touches
 * the file. Neither a checkpoint nor a stalled disk can block the loop, and nothing that fails there fails a pull.
 */
import { Worker } from 'node:worker_threads'
import { systemClock, type Clock } from '../../async/clock.ts'
import { GatewayError } from '../../errors.ts'
import type { Digest } from '../../oci/digest.ts'
import type { Tag } from '../../oci/reference.ts'
import type { Repository } from '../../oci/repository.ts'
import type {
  ChildRecord,
  ClosureRecord,
  ImagePage,
  Ledger,
  ParentRecord,
  TagRecord,
  Usage,
  VerifiedMark,
} from '../ledger.ts'
import type { Answers, FromWorker, Read, ToWorker, WorkerOptions, Write } from './messages.ts'
import { PendingWrites } from './pending-writes.ts'
import { ProblemReport } from './problem-report.ts'

/** Longest wait of a write for its batch: at most this much is lost by a kill. */
const BATCH_MS = 20
/** Rows at which a batch is posted at once: about a millisecond of the worker's time. */
const BATCH_ROWS = 500
const MAX_PENDING_ROWS = 100_000
const MAX_PENDING_READS = 10_000
/** After this a read answers "not known": an upstream is asked instead, which is slow but right. */
const READ_TIMEOUT_MS = 2_000
/** Lists are for keeping and operators: nobody's pull waits for them. */
const LIST_TIMEOUT_MS = 30_000
const CLOSE_TIMEOUT_MS = 10_000
const RESTART_MS = 10_000

export interface SqliteLedgerOptions {
  /** The database file; its folder is made when missing. Must be on a local disk. */
  readonly path: string
  /** Told of what went wrong behind the caller's back; each kind at most once a minute. Must not throw. */
  readonly onError: (error: Error) => void
  readonly clock?: Clock
  /** Rows not yet applied, above which uses are dropped; above twice it everything is. Default: 100,000. */
  readonly maxPendingRows?: number
  /** After this a read answers "not known". Default: 2,000. */
  readonly readTimeoutMs?: number
  /** Between the death of the worker and a new one. Default: 10,000. */
  readonly restartMs?: number
}

/**
 * Opens (or makes) the ledger. A corrupt file is moved aside and begun anew; both that and a full disk go to `onError`.
 * Rejects with STORE_UNUSABLE when the file cannot be opened, is in use by another process, or is of a newer release.
 */
export async function openSqliteLedger(options: SqliteLedgerOptions): Promise<SqliteLedger> {
  const ledger = new SqliteLedger(options)
  await ledger.start()
  return ledger
}

interface PendingRead {
  readonly settle: (value: unknown) => void
  readonly timer: NodeJS.Timeout
}

export class SqliteLedger implements Ledger {
  readonly #path: string
  readonly #readTimeoutMs: number
  readonly #restartMs: number
  readonly #clock: Clock
  readonly #problems: ProblemReport
  readonly #pending: PendingWrites
  readonly #reads = new Map<number, PendingRead>()
  #worker: Worker | undefined
  #lastId = 0
  #batchTimer: NodeJS.Timeout | undefined
  #restartTimer: NodeJS.Timeout | undefined
  #toldDropped = 0
  #closing: Promise<void> | undefined

  constructor(options: SqliteLedgerOptions) {
    this.#path = options.path
    this.#readTimeoutMs = options.readTimeoutMs ?? READ_TIMEOUT_MS
    this.#restartMs = options.restartMs ?? RESTART_MS
    this.#clock = options.clock ?? systemClock
    this.#problems = new ProblemReport(options.onError, this.#clock)
    this.#pending = new PendingWrites({ maxRows: options.maxPendingRows ?? MAX_PENDING_ROWS })
  }

  /** Rows that were never written, because the queue was full or the worker died. */
  get droppedRows(): number {
    return this.#pending.dropped
  }

  /** Starts the worker; resolves when the database is open. Called once, by {@link openSqliteLedger}. */
  start(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    // Built code has its own suffix, which the compiler does not rewrite in here.
    const entry = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url)
    const workerData: WorkerOptions = { path: this.#path }
    const worker = new Worker(entry, { name: 'ledger', workerData })
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'ready') {
        // A restart may come up while the ledger is being closed.
        if (this.#closing) void worker.terminate()
        else this.#worker = worker
        // An idle ledger keeps no process alive; while an answer is due it does.
        if (this.#reads.size === 0) worker.unref()
        resolve()
      } else if (message.kind === 'unusable') {
        reject(new GatewayError(message.code, message.message))
      } else {
        this.#receive(message)
      }
    })
    worker.on('error', (error: unknown) => {
      const text = `ledger ${this.#path}: its worker failed: ${error instanceof Error ? error.message : String(error)}`
      reject(new GatewayError('STORE_UNUSABLE', text, { cause: error }))
      this.#problems.add('worker', text, error)
    })
    worker.on('exit', () => {
      reject(new GatewayError('STORE_UNUSABLE', `ledger ${this.#path}: its worker ended before the database was open`))
      if (this.#worker === worker) this.#onWorkerLost()
    })
    return promise
  }

  readTag(namespace: string, repository: Repository, tag: Tag): Promise<TagRecord | undefined> {
    return this.#ask({ read: 'tag', namespace, repository, tag })
  }

  writeTag(namespace: string, repository: Repository, tag: Tag, record: TagRecord): void {
    this.#add({ write: 'tag', namespace, repository, tag, record })
  }

  removeTag(namespace: string, repository: Repository, tag: Tag): void {
    this.#add({ write: 'tagRemoval', namespace, repository, tag })
  }

  readVerified(namespace: string, digest: Digest): Promise<VerifiedMark | undefined> {
    return this.#ask({ read: 'verified', namespace, digest })
  }

  writeVerified(namespace: string, digest: Digest, mark: VerifiedMark): void {
    this.#add({ write: 'verified', namespace, digest, mark })
  }

  removeVerified(namespace: string, digest: Digest): void {
    this.#add({ write: 'verifiedRemoval', namespace, digest })
  }

  writeManifest(
    namespace: string,
    repository: Repository,
    manifest: Digest,
    children: readonly ChildRecord[],
    addedAt = this.#clock.now(),
  ): void {
    // Callers may pass richer children; only what is stored crosses to the worker.
    const edges = children.map(({ digest, size, role }) => ({ digest, size, role }))
    this.#add({ write: 'manifest', namespace, repository, manifest, children: edges, addedAt })
  }

  removeManifest(namespace: string, repository: Repository, manifest: Digest): void {
    this.#add({ write: 'manifestRemoval', namespace, repository, manifest })
  }

  async readParents(namespace: string, repository: Repository, child: Digest): Promise<ParentRecord[]> {
    return (await this.#ask({ read: 'parents', namespace, repository, child })) ?? []
  }

  async readChildren(namespace: string, repository: Repository, manifest: Digest): Promise<ChildRecord[]> {
    return (await this.#ask({ read: 'children', namespace, repository, manifest })) ?? []
  }

  touch(namespace: string, repository: Repository, manifest: Digest, kind: 'get' | 'head', at: number): void {
    if (this.#closing) return
    this.#pending.touch(namespace, repository, manifest, kind, at)
    this.#schedule()
  }

  readUsage(namespace: string, repository: Repository, manifest: Digest): Promise<Usage | undefined> {
    return this.#ask({ read: 'usage', namespace, repository, manifest })
  }

  listImages(
    namespace: string,
    options: {
      readonly repository?: Repository | undefined
      readonly after?: string | undefined
      readonly limit: number
    },
  ): Promise<ImagePage | undefined> {
    const { repository, after, limit } = options
    return this.#ask({ read: 'images', namespace, repository, after, limit }, LIST_TIMEOUT_MS)
  }

  listLeastUsed(
    namespace: string,
    { after, limit }: { readonly after?: string | undefined; readonly limit: number },
  ): Promise<ImagePage | undefined> {
    return this.#ask({ read: 'leastUsed', namespace, after, limit }, LIST_TIMEOUT_MS)
  }

  readClosure(namespace: string, repository: Repository, image: Digest): Promise<ClosureRecord[] | undefined> {
    return this.#ask({ read: 'closure', namespace, repository, image }, LIST_TIMEOUT_MS)
  }

  countReferences(namespace: string, digests: readonly Digest[]): Promise<number[] | undefined> {
    return this.#ask({ read: 'references', namespace, digests }, LIST_TIMEOUT_MS)
  }

  readVerifiedBytes(namespace: string): Promise<number | undefined> {
    return this.#ask({ read: 'verifiedBytes', namespace }, LIST_TIMEOUT_MS)
  }

  async isComplete(namespace: string): Promise<boolean> {
    return (await this.#ask({ read: 'isComplete', namespace })) ?? false
  }

  markComplete(namespace: string): void {
    this.#add({ write: 'complete', namespace })
  }

  async flush(): Promise<void> {
    if (this.#closing) return this.#closing
    this.#postBatch()
    await this.#request((id) => ({ kind: 'flush', id }), CLOSE_TIMEOUT_MS)
  }

  /** Writes what is pending, closes the database and ends the worker. Later writes are ignored, reads know nothing. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    clearTimeout(this.#restartTimer)
    this.#postBatch()
    const worker = this.#worker
    if (worker === undefined) return
    const ended = new Promise((resolve) => worker.once('exit', resolve))
    await this.#request((id) => ({ kind: 'close', id }), CLOSE_TIMEOUT_MS)
    this.#worker = undefined
    // After a timeout the worker hangs in the disk and is not waited for: the next start finds an unclean stop.
    void worker.terminate()
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1000).unref())])
    for (const read of this.#reads.values()) read.settle(undefined)
  }

  #add(write: Write): void {
    if (this.#closing) return
    this.#pending.add(write)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#pending.rows >= BATCH_ROWS && this.#worker) this.#postBatch()
    else this.#batchTimer ??= setTimeout(() => this.#postBatch(), BATCH_MS).unref()
  }

  #postBatch(): void {
    clearTimeout(this.#batchTimer)
    this.#batchTimer = undefined
    const worker = this.#worker
    if (worker === undefined) return
    const batch = this.#pending.take()
    if (batch) worker.postMessage({ kind: 'batch', batch } satisfies ToWorker)
    const dropped = this.#pending.dropped
    if (dropped > this.#toldDropped) {
      this.#problems.add('overflow', `ledger ${this.#path}: its disk is too slow: ${dropped} rows dropped so far`)
      this.#toldDropped = dropped
    }
  }

  /** Writes go ahead of the read in the worker's one queue, so the read sees them. */
  #ask<R extends Read>(read: R, timeoutMs = this.#readTimeoutMs): Promise<Answers[R['read']] | undefined> {
    if (this.#closing) return Promise.resolve(undefined)
    this.#postBatch()
    // The worker answers each kind of read with its own type: facts.ts, answer().
    return this.#request((id) => ({ kind: 'read', id, read }), timeoutMs) as Promise<Answers[R['read']] | undefined>
  }

  #request(message: (id: number) => ToWorker, timeoutMs: number): Promise<unknown> {
    const worker = this.#worker
    if (worker === undefined) return Promise.resolve(undefined)
    if (this.#reads.size >= MAX_PENDING_READS) {
      this.#problems.add(
        'slow',
        `ledger ${this.#path}: ${MAX_PENDING_READS} reads wait for its disk: more are not asked`,
      )
      return Promise.resolve(undefined)
    }
    const id = ++this.#lastId
    return new Promise((resolve) => {
      const settle = (value: unknown): void => {
        clearTimeout(timer)
        this.#reads.delete(id)
        if (this.#reads.size === 0) worker.unref()
        resolve(value)
      }
      const timer = setTimeout(() => {
        this.#problems.add('slow', `ledger ${this.#path}: no answer after ${timeoutMs} ms: taken as not known`)
        settle(undefined)
      }, timeoutMs)
      if (this.#reads.size === 0) worker.ref()
      this.#reads.set(id, { settle, timer })
      worker.postMessage(message(id))
    })
  }

  #receive(message: Extract<FromWorker, { kind: 'applied' | 'answer' | 'problem' }>): void {
    switch (message.kind) {
      case 'applied':
        this.#pending.confirm(message.rows)
        return
      case 'answer':
        this.#reads.get(message.id)?.settle(message.value)
        return
      case 'problem':
        this.#problems.add(message.topic, message.message)
    }
  }

  /** The worker died: what it had is lost, reads know nothing, and a new one is started after a while. */
  #onWorkerLost(): void {
    this.#worker = undefined
    this.#pending.abandon()
    for (const read of this.#reads.values()) read.settle(undefined)
    if (this.#closing) return
    const restart = (): void => {
      this.start().catch((error: unknown) => {
        this.#problems.add('worker', error instanceof Error ? error.message : String(error), error)
        this.#restartTimer = setTimeout(restart, this.#restartMs).unref()
      })
    }
    this.#restartTimer = setTimeout(restart, this.#restartMs).unref()
  }
}
