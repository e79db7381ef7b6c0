/** Reads the images that might go, a page at a time, with all that each needs and what that takes of the disk. */
import type { Digest } from '../oci/digest.ts'
import { parseDigest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { ClosureRecord, ImageRecord, Ledger } from '../ledger/ledger.ts'
import type { KeptNamespace } from './namespace.ts'
import type { Candidate } from './policy.ts'

/** An image that might go, with what is needed to remove it. */
export interface HeldImage extends Candidate, Omit<ImageRecord, 'usedAt'> {
  readonly repository: Repository
}

export interface Inventory {
  readonly images: readonly HeldImage[]
  /** Digests some image of the namespace needs that is not among these. */
  readonly neededElsewhere: ReadonlySet<Digest>
  readonly next: string | undefined
}

/** Tags that are not pulled by name: what they point to is used with the image they are named after. */
const COMPANION = /^(sha256|sha512)-([0-9a-f]{64,128})(?:\.\w+)?$/
const WIDTH = 16

/** The least recently used images after `after`. Undefined: not known now. */
export async function readLeastUsed(
  namespace: KeptNamespace,
  ledger: Ledger,
  { after, limit }: { readonly after: string | undefined; readonly limit: number },
): Promise<Inventory | undefined> {
  const page = await ledger.listLeastUsed(namespace.name, { after, limit })
  if (page === undefined) return undefined
  const isPinned = await namespace.pins.matcher()
  const measure = new Measure(namespace)
  const images: HeldImage[] = []
  const seen = new ReferenceCount()
  for (const record of page.images) {
    const closure = await ledger.readClosure(namespace.name, record.repository, record.digest)
    if (closure === undefined) return undefined
    seen.add(record.repository, closure)
    images.push(await heldImage(namespace, ledger, { record, closure, isPinned: isPinned(record), measure }))
  }
  const neededElsewhere = await seen.neededElsewhere(namespace.name, ledger)
  return neededElsewhere && { images, neededElsewhere, next: page.next }
}

/** What a page of images takes of the disk, each counted whole. */
export async function measureImage(namespace: KeptNamespace, closure: readonly ClosureRecord[]): Promise<number> {
  const needs = await new Measure(namespace).needsOf(closure)
  return [...needs.values()].reduce((sum, bytes) => sum + bytes, 0)
}

/** Bytes that would be freed if all these images went. Undefined: not known now. */
export async function freedBy(
  namespace: KeptNamespace,
  ledger: Ledger,
  images: readonly Pick<ImageRecord, 'repository' | 'digest'>[],
): Promise<number | undefined> {
  const measure = new Measure(namespace)
  const seen = new ReferenceCount()
  const sizes = new Map<Digest, number>()
  for (const { repository, digest } of images) {
    const closure = await ledger.readClosure(namespace.name, repository, digest)
    if (closure === undefined) return undefined
    seen.add(repository, closure)
    for (const [needed, bytes] of await measure.needsOf(closure)) sizes.set(needed, bytes)
  }
  const elsewhere = await seen.neededElsewhere(namespace.name, ledger)
  return elsewhere && [...sizes].reduce((sum, [digest, bytes]) => sum + (elsewhere.has(digest) ? 0 : bytes), 0)
}

async function heldImage(
  namespace: KeptNamespace,
  ledger: Ledger,
  found: {
    readonly record: ImageRecord
    readonly closure: readonly ClosureRecord[]
    readonly isPinned: boolean
    readonly measure: Measure
  },
): Promise<HeldImage> {
  const { record, closure, isPinned, measure } = found
  const host = await companionUse(namespace.name, ledger, record)
  const usedAt = Math.max(record.usedAt, host.usedAt)
  return {
    ...record,
    key: `${namespace.name} ${record.repository}@${record.digest}`,
    namespace: namespace.name,
    usedAt,
    seenAt: Math.max(usedAt, record.lastHeadAt, host.seenAt),
    isPinned,
    needs: await measure.needsOf(closure),
  }
}

/** Last use of the image a signature's tag is named after; nothing else tells that the signature is used with it. */
async function companionUse(
  namespace: string,
  ledger: Ledger,
  { repository, tags }: ImageRecord,
): Promise<{ readonly usedAt: number; readonly seenAt: number }> {
  let usedAt = 0
  let seenAt = 0
  for (const tag of tags) {
    const [, algorithm, hex] = COMPANION.exec(tag) ?? []
    const subject = algorithm === undefined ? undefined : parseDigest(`${algorithm}:${hex}`)
    const usage = subject && (await ledger.readUsage(namespace, repository, subject))
    if (usage === undefined) continue
    usedAt = Math.max(usedAt, usage.lastGetAt)
    seenAt = Math.max(seenAt, usage.lastGetAt, usage.lastHeadAt)
  }
  return { usedAt, seenAt }
}

/** Sizes on the disk, each looked up once however many images share it. */
class Measure {
  readonly #namespace: KeptNamespace
  readonly #sizes = new Map<Digest, number>()

  constructor(namespace: KeptNamespace) {
    this.#namespace = namespace
  }

  async needsOf(closure: readonly ClosureRecord[]): Promise<Map<Digest, number>> {
    const digests = [...new Set(closure.map(({ digest }) => digest))]
    const unknown = digests.filter((digest) => !this.#sizes.has(digest))
    for (let start = 0; start < unknown.length; start += WIDTH) {
      await Promise.all(
        unknown.slice(start, start + WIDTH).map(async (digest) => {
          this.#sizes.set(digest, (await this.#namespace.store.measureBlob(digest)) ?? 0)
        }),
      )
    }
    return new Map(digests.map((digest) => [digest, this.#sizes.get(digest) ?? 0]))
  }
}

/** How many references to each digest the images of one page account for. */
class ReferenceCount {
  readonly #counts = new Map<Digest, number>()
  /** A manifest two images share names its blobs once. */
  readonly #edges = new Set<string>()

  add(repository: Repository, closure: readonly ClosureRecord[]): void {
    for (const { parent, digest, role } of closure) {
      const isManifest = role === 'manifest' || role === 'referrer'
      if (isManifest) this.#count(`${repository}@${digest}`, digest)
      if (parent !== undefined && role !== 'referrer') this.#count(`${repository}@${parent} ${role} ${digest}`, digest)
    }
  }

  /** Those with more references than these. Undefined: not known now. */
  async neededElsewhere(namespace: string, ledger: Ledger): Promise<Set<Digest> | undefined> {
    const elsewhere = new Set<Digest>()
    const digests = [...this.#counts.keys()]
    for (let start = 0; start < digests.length; start += BATCH) {
      const batch = digests.slice(start, start + BATCH)
      const counts = await ledger.countReferences(namespace, batch)
      if (counts === undefined) return undefined
      for (const [index, digest] of batch.entries()) {
        if ((counts[index] ?? Infinity) > (this.#counts.get(digest) ?? 0)) elsewhere.add(digest)
      }
    }
    return elsewhere
  }

  #count(edge: string, digest: Digest): void {
    if (this.#edges.has(edge)) return
    this.#edges.add(edge)
    this.#counts.set(digest, (this.#counts.get(digest) ?? 0) + 1)
  }
}

const BATCH = 500
