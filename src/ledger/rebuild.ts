/**
 * Rebuilds what a lost ledger knew of a namespace from its store, in the background while the gateway serves. Knows
 * neither store nor cache, only the few reads it needs; what it cannot learn is history (pull counts); last use is as old
 * as the link's own stamp of it says.
 */
import { systemClock, type Clock } from '../async/clock.ts'
import { algorithmOf, digestOf, type Digest } from '../oci/digest.ts'
import { childrenOf, type Manifest, type ParsedManifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Ledger } from './ledger.ts'

/** Names asked of the store at a time. */
const PAGE = 100
/** Longest stretch of work between two turns of the loop, when nothing in it waits by itself. */
const SLICE_MS = 5

/** What is read of a store; every `Store` is one. */
export interface RebuildSource {
  listRepositories(options: { readonly last?: string; readonly limit: number }): Promise<Repository[]>
  listTags(repository: Repository): Promise<Tag[]>
  readTag(repository: Repository, tag: Tag): Promise<Digest | undefined>
  listRevisions(repository: Repository): Promise<readonly RevisionFound[]>
  readManifest(repository: Repository, digest: Digest): Promise<Manifest | undefined>
}

export interface RevisionFound {
  readonly digest: Digest
  /** What a revoked manifest names is proof of nothing, so its edges stay unknown. */
  readonly isRevoked: boolean
  /** Epoch ms. */
  readonly usedAt: number
}

export interface RebuildProgress {
  readonly namespace: string
  readonly repositories: number
  readonly manifests: number
  readonly tags: number
  /** Manifests whose bytes are missing, not what their digest says, or readable as nothing we know. */
  readonly unreadable: number
  /** Repositories that the store failed to list or read. */
  readonly failed: number
  /** Why the first of them failed. */
  readonly failure: unknown
}

export interface RebuildOptions {
  readonly namespace: string
  readonly store: RebuildSource
  readonly ledger: Ledger
  readonly parse: (bytes: Uint8Array) => ParsedManifest | undefined
  /** Ends the rebuild, which then rejects with its reason. What was written stays, and the next run goes on from it. */
  readonly signal: AbortSignal
  /** Called after each page of repositories and at the end. */
  readonly report: (progress: RebuildProgress) => void
  readonly clock?: Clock
}

/**
 * Walks the namespace and writes the edges of each manifest and the target of each tag, taken as stale (`checkedAt` 0).
 * What the gateway itself writes meanwhile stands. Marks the namespace complete unless a repository failed: then the
 * next run tries again. Idempotent: known manifests are not read again. Rejects only when aborted, or when the store
 * cannot list repositories at all.
 */
export async function rebuildNamespace(options: RebuildOptions): Promise<RebuildProgress> {
  const walk = new Rebuild(options)
  return walk.run()
}

class Rebuild {
  readonly #options: RebuildOptions
  readonly #startedAt: number
  readonly #progress = {
    repositories: 0,
    manifests: 0,
    tags: 0,
    unreadable: 0,
    failed: 0,
    failure: undefined as unknown,
  }
  #sliceStart = performance.now()

  constructor(options: RebuildOptions) {
    this.#options = options
    this.#startedAt = (options.clock ?? systemClock).now()
  }

  async run(): Promise<RebuildProgress> {
    const { store, ledger, namespace, signal } = this.#options
    for (let last: string | undefined; ;) {
      signal.throwIfAborted()
      const page = await store.listRepositories({ limit: PAGE, ...(last !== undefined && { last }) })
      for (const repository of page) await this.#repository(repository)
      last = page.at(-1)
      if (last === undefined || page.length < PAGE) break
      this.#report()
    }
    if (this.#progress.failed === 0) ledger.markComplete(namespace)
    await ledger.flush()
    return this.#report()
  }

  async #repository(repository: Repository): Promise<void> {
    const { store, signal } = this.#options
    this.#progress.repositories++
    try {
      // Edges before tags: whoever follows a tag finds what it leads to.
      for (const revision of await store.listRevisions(repository)) {
        if (!revision.isRevoked) await this.#manifest(repository, revision)
      }
      for (const tag of await store.listTags(repository)) await this.#tag(repository, tag)
    } catch (error) {
      if (signal.aborted) throw error
      // One unreadable folder must not keep the rest unknown.
      if (this.#progress.failed++ === 0) this.#progress.failure = error
    }
  }

  async #manifest(repository: Repository, { digest, usedAt }: RevisionFound): Promise<void> {
    await this.#breathe()
    const { store, ledger, namespace, parse } = this.#options
    this.#progress.manifests++
    // Edges follow from the bytes, so what is known is right. Waiting for the answer also holds us to the ledger's pace.
    const known = await ledger.readChildren(namespace, repository, digest)
    if (known.length > 0) return
    const manifest = await store.readManifest(repository, digest)
    // Only a verified manifest is a proof, and an adopted folder was verified by nobody.
    const isVerified = manifest !== undefined && digestOf(manifest.bytes, algorithmOf(digest)) === digest
    const parsed = isVerified ? parse(manifest.bytes) : undefined
    if (parsed === undefined) this.#progress.unreadable++
    else ledger.writeManifest(namespace, repository, digest, childrenOf(parsed), usedAt)
  }

  async #tag(repository: Repository, tag: Tag): Promise<void> {
    await this.#breathe()
    const { store, ledger, namespace } = this.#options
    this.#progress.tags++
    const digest = await store.readTag(repository, tag)
    if (digest === undefined) return
    const known = await ledger.readTag(namespace, repository, tag)
    // Written since we began: newer than what we read. Else the folder is right, also over a ledger that says otherwise.
    if (known && (known.digest === digest || known.checkedAt >= this.#startedAt)) return
    ledger.writeTag(namespace, repository, tag, { digest, checkedAt: 0 })
  }

  /** Gives the loop a turn when this slice was long enough. */
  async #breathe(): Promise<void> {
    this.#options.signal.throwIfAborted()
    if (performance.now() - this.#sliceStart < SLICE_MS) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#sliceStart = performance.now()
  }

  #report(): RebuildProgress {
    const progress = { namespace: this.#options.namespace, ...this.#progress }
    this.#options.report(progress)
    return progress
  }
}
