/**
 * A kept image is a whole image. After a real pull the rest of that platform's image, its referrers and its signature
 * tags follow in the background, a few at a time, and never in the way of clients.
 */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { Limiter } from '../async/limiter.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { algorithmOf, hexOf, type Digest } from '../oci/digest.ts'
import { childrenOf, parseManifest, type Child } from '../oci/manifest.ts'
import { parseTag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { BlobCache } from './blob-cache.ts'
import type { ManifestCache } from './manifest-cache.ts'
import type { ReferrersCache } from './referrers.ts'

export interface ImageCompleterOptions {
  readonly namespace: string
  readonly ledger: Ledger
  readonly clock: Clock
  readonly manifests: ManifestCache
  readonly blobs: BlobCache
  readonly referrers: ReferrersCache
  /** `never` leaves what clients did not ask for where it is. */
  readonly mode: 'onPull' | 'never'
  /** Images that miss more bytes than this are left as they are. */
  readonly maxBytes: number
  readonly onFailed: (repository: Repository, digest: Digest, error: unknown) => void
}

/** How many images are completed at a time, and how many may wait; what is beyond is completed at its next pull. */
const SLOTS = 2
const QUEUE = 256
const MAX_REMEMBERED_IMAGES = 10_000
/** In an outage every pull would try, and say, the same again. */
const RETRY_AFTER_MS = 60_000
/** cosign's tags beside an image, and the tag scheme of referrers itself. */
const COMPANION_SUFFIXES = ['', '.sig', '.att', '.sbom']

export class ImageCompleter {
  readonly #options: ImageCompleterOptions
  /** Manifests that clients asked for of late: the platform that is being pulled, out of all that share a layer. */
  readonly #asked = new LRUCache<string, true>({ max: MAX_REMEMBERED_IMAGES })
  readonly #completed = new LRUCache<string, true>({ max: MAX_REMEMBERED_IMAGES })
  /** When an image that could not be completed is tried again, in epoch ms. */
  readonly #retryAt = new LRUCache<string, number>({ max: MAX_REMEMBERED_IMAGES })
  readonly #running = new Set<string>()
  readonly #limiter: Limiter
  readonly #closing = new AbortController()

  constructor(options: ImageCompleterOptions) {
    this.#options = options
    this.#limiter = new Limiter({ slots: SLOTS, queue: QUEUE, what: `${options.namespace}: images to complete` })
  }

  /** A client got this manifest by GET. */
  noteManifest(repository: Repository, digest: Digest): void {
    this.#asked.set(`${repository}@${digest}`, true)
  }

  /** A client asks for a whole blob. If it is a layer of an image that was asked for, the rest follows. */
  noteBlob(repository: Repository, digest: Digest): void {
    if (this.#options.mode === 'never' || this.#closing.signal.aborted) return
    void this.#startFor(repository, digest).catch((error: unknown) => this.#options.onFailed(repository, digest, error))
  }

  /** Waits until nothing runs any more; for tests and for a drain. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  }

  /** Gives up; resolves when nothing runs any more. */
  async close(): Promise<void> {
    this.#closing.abort(new DOMException('the gateway is stopping', 'AbortError'))
    await this.idle()
  }

  async #startFor(repository: Repository, layer: Digest): Promise<void> {
    const { ledger, namespace } = this.#options
    const parents = await ledger.readParents(namespace, repository, layer)
    for (const { parent, role } of parents) {
      const key = `${repository}@${parent}`
      if (role !== 'layer' || !this.#isDue(key)) continue
      this.#running.add(key)
      void this.#run(repository, parent)
        .then(() => this.#completed.set(key, true))
        .catch((error: unknown) => this.#onFailed(repository, parent, error))
        .finally(() => this.#running.delete(key))
    }
  }

  /** Whether a client asked for this image, and it is neither complete, nor at it, nor just tried in vain. */
  #isDue(key: string): boolean {
    if (!this.#asked.has(key) || this.#completed.has(key) || this.#running.has(key)) return false
    return this.#options.clock.now() >= (this.#retryAt.get(key) ?? 0)
  }

  #onFailed(repository: Repository, image: Digest, error: unknown): void {
    if (this.#closing.signal.aborted) return
    this.#retryAt.set(`${repository}@${image}`, this.#options.clock.now() + RETRY_AFTER_MS)
    this.#options.onFailed(repository, image, error)
  }

  async #run(repository: Repository, image: Digest): Promise<void> {
    const { signal } = this.#closing
    using _slot = await this.#limiter.acquire(signal)
    await this.#completeBlobs(repository, image, signal)
    const { ledger, namespace } = this.#options
    const indexes = (await ledger.readParents(namespace, repository, image)).filter(({ role }) => role === 'manifest')
    for (const subject of new Set([image, ...indexes.map(({ parent }) => parent)])) {
      await this.#completeReferrers(repository, subject, signal)
      await this.#completeCompanions(repository, subject, signal)
    }
  }

  async #completeBlobs(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    const { manifests, blobs, maxBytes } = this.#options
    const manifest = await manifests.findHeld(repository, digest)
    const parsed = manifest && parseManifest(manifest.bytes)
    if (parsed === undefined) return
    const missing: Child[] = []
    for (const child of childrenOf(parsed).filter(isFetched)) {
      if (!(await blobs.isHeld({ repository, digest: child.digest }))) missing.push(child)
    }
    if (missing.reduce((sum, { size }) => sum + size, 0) > maxBytes) return
    for (const { digest: blob } of missing) await blobs.complete({ repository, digest: blob, signal })
  }

  async #completeReferrers(repository: Repository, subject: Digest, signal: AbortSignal): Promise<void> {
    const { referrers } = this.#options
    const found = await referrers.find({ repository, digest: subject, artifactType: undefined, query: '', signal })
    const index = parseManifest(found.bytes)
    if (index?.kind !== 'index') return
    for (const { digest } of index.manifests) await this.#fetchWhole(repository, digest, signal)
  }

  async #completeCompanions(repository: Repository, subject: Digest, signal: AbortSignal): Promise<void> {
    for (const suffix of COMPANION_SUFFIXES) {
      const tag = parseTag(`${algorithmOf(subject)}-${hexOf(subject)}${suffix}`)
      const found = tag && (await this.#options.manifests.findIfThere(repository, tag, signal))
      if (found !== undefined) await this.#completeBlobs(repository, found.digest, signal)
    }
  }

  async #fetchWhole(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    await this.#options.manifests.find({ repository, reference: digest, signal })
    await this.#completeBlobs(repository, digest, signal)
  }
}

/** Foreign layers are fetched by the client from where they say, never from a registry. */
function isFetched({ role, mediaType }: Child): boolean {
  return (role === 'config' || role === 'layer') && !/foreign|nondistributable/.test(mediaType)
}
