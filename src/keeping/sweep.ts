/**
 * Frees blobs that no remaining manifest of their namespace names, and counts what is held on the way.
 *
 * 1. Learn what revoked manifests name: they are proof of nothing, but their bytes stay until the operator purges them.
 * 2. Walk the blobs; ask the ledger of each batch which nobody names; of these the old ones are orphans.
 * 3. For every so many orphans: walk the repositories' links and remove those that point at one, or at nothing; sync;
 *    then remove the bytes.
 */
import type { Digest } from '../oci/digest.ts'
import { childrenOf, parseManifest } from '../oci/manifest.ts'
import type { Repository } from '../oci/repository.ts'
import type { BlobEntry } from '../store/store.ts'
import { removeUnneeded, type RemovalOptions } from './removal.ts'

export interface SweepOptions extends RemovalOptions {
  /** Epoch ms. */
  readonly now: number
  /** A blob younger than this may belong to a manifest that is still on its way. */
  readonly minAgeMs: number
  /** Changes nothing, only tells. */
  readonly isDry: boolean
  readonly signal: AbortSignal
}

export interface SweepReport {
  readonly namespace: string
  /** Blobs held before, and what they took of the disk. */
  readonly blobs: number
  readonly bytes: number
  /** Blobs nobody needed, and their bytes; those left because they were in use are not among them. */
  readonly orphans: number
  readonly orphanBytes: number
  /** Links removed: to an orphan, or to bytes that were gone already. */
  readonly links: number
}

const BATCH = 500
/** Orphans whose links are looked for in one walk over the repositories. */
const MAX_ORPHANS = 20_000
const PAGE = 100
/** Manifests a revoked one may name, in levels. */
const MAX_DEPTH = 4

/** Sweeps one namespace. Undefined when its ledger does not know all references now; then nothing was changed. */
export async function sweepNamespace(options: SweepOptions): Promise<SweepReport | undefined> {
  const { namespace, ledger } = options
  if (!(await ledger.isComplete(namespace.name))) return undefined
  const sweep = new Sweep(options)
  namespace.usage.startWalk()
  let isWhole = false
  try {
    isWhole = await sweep.run()
    return isWhole ? sweep.report : undefined
  } finally {
    namespace.usage.endWalk(isWhole)
  }
}

class Sweep {
  readonly #options: SweepOptions
  readonly #kept = new Set<Digest>()
  #orphans: BlobEntry[] = []
  readonly #found = { blobs: 0, bytes: 0, orphans: 0, orphanBytes: 0, links: 0 }

  constructor(options: SweepOptions) {
    this.#options = options
  }

  get report(): SweepReport {
    return { namespace: this.#options.namespace.name, ...this.#found }
  }

  /** False: the ledger stopped answering on the way. */
  async run(): Promise<boolean> {
    const { namespace } = this.#options
    await this.#learnRevoked()
    let batch: BlobEntry[] = []
    for await (const entry of namespace.store.listBlobs()) {
      this.#options.signal.throwIfAborted()
      namespace.usage.walked(entry.digest, entry.diskBytes)
      this.#found.blobs++
      this.#found.bytes += entry.diskBytes
      batch.push(entry)
      if (batch.length < BATCH) continue
      if (!(await this.#sort(batch))) return false
      batch = []
    }
    if (!(await this.#sort(batch))) return false
    await this.#removeOrphans()
    return true
  }

  /** Sorts out orphans. False: the ledger does not know now. */
  async #sort(batch: readonly BlobEntry[]): Promise<boolean> {
    const { namespace, ledger, now, minAgeMs } = this.#options
    const old = batch.filter(({ mtimeMs, digest }) => now - mtimeMs >= minAgeMs && !this.#kept.has(digest))
    const references = await ledger.countReferences(
      namespace.name,
      old.map(({ digest }) => digest),
    )
    if (references === undefined) return false
    this.#orphans.push(
      ...old.filter(({ digest }, index) => references[index] === 0 && !namespace.caches.isBusy(digest)),
    )
    if (this.#orphans.length >= MAX_ORPHANS) await this.#removeOrphans()
    return true
  }

  async #removeOrphans(): Promise<void> {
    const { namespace, isDry } = this.#options
    const orphans = new Map(this.#orphans.map((entry) => [entry.digest, entry]))
    this.#orphans = []
    for await (const repository of this.#repositories()) await this.#removeLinks(repository, orphans)
    if (isDry) {
      this.#found.orphans += orphans.size
      for (const { diskBytes } of orphans.values()) this.#found.orphanBytes += diskBytes
      return
    }
    await namespace.store.flush()
    const { blobs, bytes } = await removeUnneeded(this.#options, [...orphans.keys()], 'orphan')
    this.#found.orphans += blobs
    this.#found.orphanBytes += bytes
  }

  async #removeLinks(repository: Repository, orphans: ReadonlyMap<Digest, BlobEntry>): Promise<void> {
    const { namespace, isDry } = this.#options
    const { store, caches } = namespace
    for await (const digest of store.listBlobLinks(repository)) {
      this.#options.signal.throwIfAborted()
      const isNeedless = orphans.has(digest) || (await store.statBlob(digest)) === undefined
      if (!isNeedless || (await store.readLink(repository, 'blob', digest)) !== 'linked') continue
      // A link is written after the bytes it points to, so one without them is not on its way: but its fill may be.
      const remove = async (): Promise<boolean> => {
        if (!orphans.has(digest) && (await store.statBlob(digest)) !== undefined) return false
        if (!isDry) await store.removeLink(repository, 'blob', digest)
        return true
      }
      if (await caches.removeUnused(digest, remove)) this.#found.links++
    }
  }

  async #learnRevoked(): Promise<void> {
    for await (const repository of this.#repositories()) {
      for (const { digest, isRevoked } of await this.#options.namespace.store.listRevisions(repository)) {
        if (isRevoked) await this.#keep(repository, digest, 0)
      }
    }
  }

  async #keep(repository: Repository, digest: Digest, depth: number): Promise<void> {
    if (this.#kept.has(digest) || depth > MAX_DEPTH) return
    this.#kept.add(digest)
    const manifest = await this.#options.namespace.store.readManifest(repository, digest)
    const parsed = manifest && parseManifest(manifest.bytes)
    for (const child of parsed === undefined ? [] : childrenOf(parsed)) {
      if (child.role === 'manifest') await this.#keep(repository, child.digest, depth + 1)
      else if (child.role !== 'subject') this.#kept.add(child.digest)
    }
  }

  async *#repositories(): AsyncGenerator<Repository> {
    const { store } = this.#options.namespace
    for (let last: Repository | undefined; ;) {
      const page = await store.listRepositories({ limit: PAGE, any: true, ...(last !== undefined && { last }) })
      yield* page
      last = page.at(-1)
      if (last === undefined || page.length < PAGE) return
    }
  }
}
