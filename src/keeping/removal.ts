/**
 * Taking an image out of a namespace. On the disk the order is what a crash relies on: the tags, then the links, synced,
 * then the bytes nobody else needs. What is known of it goes first of all: a pull that comes in between writes it anew,
 * and that is what the last look before the bytes finds. So no link ever points to bytes that are gone.
 */
import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { ClosureRecord, Ledger } from '../ledger/ledger.ts'
import type { Store } from '../store/store.ts'
import type { KeepingObserver, KeptNamespace, RemovalReason } from './namespace.ts'

export interface RemovalOptions {
  readonly namespace: KeptNamespace
  readonly ledger: Ledger
  readonly observe: KeepingObserver
}

export interface ImageToRemove {
  readonly repository: Repository
  readonly digest: Digest
  readonly tags: readonly Tag[]
}

export interface Removed {
  /** Bytes the disk got back, as measured. */
  readonly bytes: number
  readonly blobs: number
  /** Digests left where they are because they were in use; the sweep finds them later. */
  readonly inUse: number
}

/** As many tags of an image as `Ledger.listImages` tells. */
const MAX_TOLD_TAGS = 100

/**
 * Removes an image: its tags, the manifests nothing else in the repository names, and the blobs nobody needs any more.
 * Undefined, having changed nothing, when the ledger does not know at the moment.
 */
export async function removeImage(
  options: RemovalOptions,
  image: ImageToRemove,
  reason: RemovalReason,
): Promise<Removed | undefined> {
  const { namespace, ledger, observe } = options
  const { store, name, caches } = namespace
  const { repository, digest } = image
  const closure = await ledger.readClosure(name, repository, digest)
  if (closure === undefined) return undefined
  const tags = await allTags(store, image)
  const manifests = await removableManifests(options, repository, closure)
  const blobs = await unneededBlobs(options, repository, closure, manifests)
  for (const tag of tags) ledger.removeTag(name, repository, tag)
  for (const manifest of manifests) ledger.removeManifest(name, repository, manifest)
  caches.forget(repository, { tags, manifests: [...manifests] })
  for (const tag of tags) await store.removeTag(repository, tag)
  for (const manifest of manifests) await store.removeLink(repository, 'manifest', manifest)
  for (const blob of blobs) await store.removeLink(repository, 'blob', blob)
  await dropDanglingTags(store, repository, tags)
  await store.flush()
  const removed = await removeUnneeded(options, [...blobs, ...manifests], reason, async (blob) => {
    // Somebody may have opened it since and been told again that this repository has it.
    if (!blobs.has(blob) || (await store.readLink(repository, 'blob', blob)) === 'absent') return
    await store.removeLink(repository, 'blob', blob)
    await store.flush()
  })
  observe(namespace, { kind: 'image.evicted', repository, digest, tags, reason, bytes: removed.bytes })
  return removed
}

/**
 * Removes the bytes of those digests that no place of the namespace needs and nobody uses. `before` runs with the digest
 * claimed, just before its bytes go.
 */
export async function removeUnneeded(
  { namespace, ledger, observe }: RemovalOptions,
  digests: readonly Digest[],
  reason: RemovalReason,
  before: (digest: Digest) => Promise<void> = () => Promise.resolve(),
): Promise<Removed> {
  const { name, store, caches, usage } = namespace
  const isNeeded = async (digest: Digest): Promise<boolean> => {
    const [count] = (await ledger.countReferences(name, [digest])) ?? []
    return count !== 0
  }
  const total = { bytes: 0, blobs: 0, inUse: 0 }
  for (const digest of digests) {
    if (await isNeeded(digest)) continue
    const remove = async (): Promise<number> => {
      if (await isNeeded(digest)) return 0
      await before(digest)
      ledger.removeVerified(name, digest)
      const removed = usage.startRemoval(digest)
      const bytes = await store.removeBlob(digest)
      removed(bytes)
      return bytes
    }
    const bytes = await caches.removeUnused(digest, remove, { evenIfRead: reason === 'purge' })
    if (bytes === undefined) total.inUse++
    if (bytes === undefined || bytes === 0) continue
    total.bytes += bytes
    total.blobs++
    observe(namespace, { kind: 'blob.evicted', digest, reason, bytes })
  }
  return total
}

/** The ledger tells of few tags; where an image has more, the folder is asked. */
async function allTags(store: Store, { repository, digest, tags }: ImageToRemove): Promise<readonly Tag[]> {
  if (tags.length < MAX_TOLD_TAGS) return tags
  const found: Tag[] = []
  for (const tag of await store.listTags(repository)) {
    if ((await store.readTag(repository, tag)) === digest) found.push(tag)
  }
  return found
}

/** A check of the upstream may have written a tag again, after it was removed and before its manifest was. */
async function dropDanglingTags(store: Store, repository: Repository, tags: readonly Tag[]): Promise<void> {
  for (const tag of tags) {
    const digest = await store.readTag(repository, tag)
    if (digest !== undefined && (await store.readLink(repository, 'manifest', digest)) === 'absent') {
      await store.removeTag(repository, tag)
    }
  }
}

/** The image and what hangs on it alone: a manifest that a tag points to, or that another manifest names, stays. */
async function removableManifests(
  { namespace, ledger }: RemovalOptions,
  repository: Repository,
  closure: readonly ClosureRecord[],
): Promise<Set<Digest>> {
  const removable = new Set<Digest>()
  // A closure lists parents before what they name.
  for (const { digest, parent, role, isTagged } of closure) {
    if (role !== 'manifest' && role !== 'referrer') continue
    if (parent !== undefined && (isTagged || !removable.has(parent))) continue
    const parents = await ledger.readParents(namespace.name, repository, digest)
    if (parents.every((each) => each.role !== 'manifest' || removable.has(each.parent))) removable.add(digest)
  }
  return removable
}

async function unneededBlobs(
  { namespace, ledger }: RemovalOptions,
  repository: Repository,
  closure: readonly ClosureRecord[],
  gone: ReadonlySet<Digest>,
): Promise<Set<Digest>> {
  const unneeded = new Set<Digest>()
  for (const { digest, parent, role } of closure) {
    if (role !== 'config' && role !== 'layer') continue
    if (parent === undefined || !gone.has(parent) || unneeded.has(digest)) continue
    const parents = await ledger.readParents(namespace.name, repository, digest)
    if (parents.every((each) => each.role === 'subject' || gone.has(each.parent))) unneeded.add(digest)
  }
  return unneeded
}
