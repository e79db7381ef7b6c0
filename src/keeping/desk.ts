/** Answers an operator from the store and the ledger, and does what is asked while nothing else is evicted. */
import { GatewayError } from '../errors.ts'
import { parseDigest, type Digest } from '../oci/digest.ts'
import { parseTag } from '../oci/reference.ts'
import { parseRepository, type Repository } from '../oci/repository.ts'
import type { ImageRecord, Ledger } from '../ledger/ledger.ts'
import { freedBy, measureImage } from './inventory.ts'
import type { Keeper } from './keeper.ts'
import type { KeepingObserver, KeptNamespace } from './namespace.ts'
import type {
  ImageHeld,
  ImageList,
  ImageQuery,
  OperatorDesk,
  Pin,
  PurgedImage,
  PurgeReport,
  PurgeRequest,
  SweepRequest,
  UpstreamHeld,
} from './operator.ts'
import { isPinPattern } from './pins.ts'
import { removeImage } from './removal.ts'
import type { SweepReport } from './sweep.ts'

export interface DeskOptions {
  readonly keeper: Keeper
  readonly ledger: Ledger
  readonly observe: KeepingObserver
}

/** Images purged, or looked at in a dry run, in one call: no call takes long. */
const PURGE_PAGE = 100

export class Desk implements OperatorDesk {
  readonly #options: DeskOptions

  constructor(options: DeskOptions) {
    this.#options = options
  }

  upstreams(): Promise<readonly UpstreamHeld[]> {
    const held = this.#options.keeper.namespaces.map(({ name, usage, quotaBytes }) => {
      return { upstream: name, bytes: usage.bytes, quotaBytes: quotaBytes === Infinity ? undefined : quotaBytes }
    })
    return Promise.resolve(held)
  }

  async images({ upstream, repository, after = '', limit }: ImageQuery): Promise<ImageList> {
    const wanted = upstream === undefined ? this.#options.keeper.namespaces : [this.#namespace(upstream)]
    // A cursor is the namespace and, behind a slash that no namespace holds, its own cursor.
    const [first, inner] = splitOnce(after, '/')
    const from = first === '' ? 0 : wanted.findIndex(({ name }) => name === first)
    const images: ImageHeld[] = []
    for (const [index, namespace] of from < 0 ? [] : wanted.slice(from).entries()) {
      const page = await this.#page(namespace, {
        repository: repository === undefined ? undefined : repositoryOf(repository),
        after: index === 0 && inner !== '' ? inner : undefined,
        limit: limit - images.length,
      })
      images.push(...(await this.#held(namespace, page.images)))
      if (page.next !== undefined) return { images, next: `${namespace.name}/${page.next}` }
      const following = wanted[from + index + 1]
      if (images.length >= limit && following !== undefined) return { images, next: `${following.name}/` }
    }
    return { images }
  }

  async pins(upstream?: string): Promise<readonly Pin[]> {
    const wanted = upstream === undefined ? this.#options.keeper.namespaces : [this.#namespace(upstream)]
    const all: Pin[] = []
    for (const { name, pins } of wanted) {
      const { configured, added } = await pins.list()
      all.push(...configured.map((pattern) => ({ upstream: name, pattern, from: 'configuration' as const })))
      all.push(...added.map((pattern) => ({ upstream: name, pattern, from: 'operator' as const })))
    }
    return all
  }

  async addPin(upstream: string, pattern: string): Promise<boolean> {
    const { pins } = this.#namespace(upstream)
    if (!isPinPattern(pattern)) {
      throw new GatewayError('BAD_REQUEST', `pin ${upstream}: a pattern is 1 to 512 characters without spaces`)
    }
    return pins.add(pattern)
  }

  async removePin(upstream: string, pattern: string): Promise<boolean> {
    const { pins } = this.#namespace(upstream)
    const { configured } = await pins.list()
    if (configured.includes(pattern)) {
      const text = `unpin ${upstream}/${pattern}: it stands in that upstream's file under keep.pin; remove it there`
      throw new GatewayError('BAD_REQUEST', text)
    }
    return pins.remove(pattern)
  }

  async purge(request: PurgeRequest): Promise<PurgeReport> {
    const namespace = this.#namespace(request.upstream)
    await this.#requireComplete(namespace)
    return this.#options.keeper.runAlone(async () => {
      const { images, next } = await this.#selected(namespace, request)
      const report = request.isDry
        ? await this.#planPurge(namespace, request, images)
        : await this.#purge(namespace, request, images)
      return { isDry: request.isDry, ...report, ...(next !== undefined && { next }) }
    })
  }

  async sweep({ upstream, isDry }: SweepRequest): Promise<SweepReport> {
    const namespace = this.#namespace(upstream)
    await this.#requireComplete(namespace)
    const report = await this.#options.keeper.sweep(namespace, { isDry })
    if (report !== undefined) return report
    throw unknownNow(namespace)
  }

  /** The images a purge is about, a page of them. */
  async #selected(
    namespace: KeptNamespace,
    { repository, tag, digest, after }: PurgeRequest,
  ): Promise<{ readonly images: readonly ImageRecord[]; readonly next: string | undefined }> {
    if (repository === undefined) return this.#page(namespace, { after, limit: PURGE_PAGE })
    const name = repositoryOf(repository)
    if (tag === undefined && digest === undefined) {
      return this.#page(namespace, { repository: name, after, limit: PURGE_PAGE })
    }
    const wanted = digest === undefined ? await this.#digestOfTag(namespace, name, tag) : parseDigest(digest)
    if (wanted === undefined) {
      const what = `${namespace.name}/${repository}${digest === undefined ? `:${tag ?? ''}` : `@${digest}`}`
      throw new GatewayError('MANIFEST_UNKNOWN', `purge ${what}: it is not held`)
    }
    const image = await this.#find(namespace, name, wanted)
    return { images: [image], next: undefined }
  }

  async #digestOfTag(
    { name, store }: KeptNamespace,
    repository: Repository,
    text: string | undefined,
  ): Promise<Digest | undefined> {
    const tag = text === undefined ? undefined : parseTag(text)
    if (tag === undefined) return undefined
    return (await this.#options.ledger.readTag(name, repository, tag))?.digest ?? store.readTag(repository, tag)
  }

  async #find(namespace: KeptNamespace, repository: Repository, digest: Digest): Promise<ImageRecord> {
    // The first image behind all shorter texts is this one, if it is an image at all.
    const after = `${repository} ${digest.slice(0, -1)}`
    const [image] = (await this.#page(namespace, { repository, after, limit: 1 })).images
    if (image?.digest === digest) return image
    const what = `${namespace.name}/${repository}@${digest}`
    const parents = await this.#options.ledger.readParents(namespace.name, repository, digest)
    const owner = parents.find(({ role }) => role !== 'subject')
    if (owner === undefined) throw new GatewayError('MANIFEST_UNKNOWN', `purge ${what}: it is not held`)
    throw new GatewayError('BAD_REQUEST', `purge ${what}: ${owner.parent} names it and would miss it; purge that one`)
  }

  async #planPurge(
    namespace: KeptNamespace,
    request: PurgeRequest,
    images: readonly ImageRecord[],
  ): Promise<Pick<PurgeReport, 'images' | 'bytes' | 'inUse'>> {
    const planned = await this.#outcomes(namespace, request, images)
    const removed = planned.filter(({ outcome }) => outcome === 'removed').map(({ image }) => image)
    const bytes = await freedBy(namespace, this.#options.ledger, removed)
    if (bytes === undefined) throw unknownNow(namespace)
    return { images: planned.map(({ image, outcome }) => purged(image, outcome, request.tag)), bytes, inUse: 0 }
  }

  async #purge(
    namespace: KeptNamespace,
    request: PurgeRequest,
    images: readonly ImageRecord[],
  ): Promise<Pick<PurgeReport, 'images' | 'bytes' | 'inUse'>> {
    const { tag } = request
    const { ledger, observe } = this.#options
    const done: PurgedImage[] = []
    let bytes = 0
    let inUse = 0
    for (const { image, outcome } of await this.#outcomes(namespace, request, images)) {
      if (outcome === 'untagged') await this.#untag(namespace, image.repository, tag)
      if (outcome === 'removed' || outcome === 'needed') {
        const removed = await removeImage({ namespace, ledger, observe }, image, 'purge')
        if (removed === undefined) throw unknownNow(namespace)
        bytes += removed.bytes
        inUse += removed.inUse
      }
      done.push(purged(image, outcome, tag))
    }
    return { images: done, bytes, inUse }
  }

  async #outcomes(
    { name, pins }: KeptNamespace,
    { tag, digest }: PurgeRequest,
    images: readonly ImageRecord[],
  ): Promise<{ readonly image: ImageRecord; readonly outcome: PurgedImage['outcome'] }[]> {
    const isPinned = await pins.matcher()
    const outcomes: { image: ImageRecord; outcome: PurgedImage['outcome'] }[] = []
    for (const image of images) {
      if (isPinned(image)) outcomes.push({ image, outcome: 'pinned' })
      else if (tag !== undefined && image.tags.some((each) => each !== tag))
        outcomes.push({ image, outcome: 'untagged' })
      else {
        // Where all of a repository goes, so does whatever names it.
        const isAlone = tag !== undefined || digest !== undefined
        const parents = isAlone ? await this.#options.ledger.readParents(name, image.repository, image.digest) : []
        outcomes.push({ image, outcome: parents.some(({ role }) => role === 'manifest') ? 'needed' : 'removed' })
      }
    }
    return outcomes
  }

  async #untag(
    { name, store, caches }: KeptNamespace,
    repository: Repository,
    text: string | undefined,
  ): Promise<void> {
    const tag = text === undefined ? undefined : parseTag(text)
    if (tag === undefined) return
    this.#options.ledger.removeTag(name, repository, tag)
    caches.forget(repository, { tags: [tag], manifests: [] })
    await store.removeTag(repository, tag)
    await store.flush()
  }

  async #held(namespace: KeptNamespace, records: readonly ImageRecord[]): Promise<ImageHeld[]> {
    const { ledger } = this.#options
    const isPinned = await namespace.pins.matcher()
    const held: ImageHeld[] = []
    for (const record of records) {
      const { repository, digest, tags, usedAt, addedAt, gets } = record
      const closure = (await ledger.readClosure(namespace.name, repository, digest)) ?? []
      held.push({
        upstream: namespace.name,
        repository,
        digest,
        tags,
        bytes: await measureImage(namespace, closure),
        usedAt: new Date(usedAt).toISOString(),
        addedAt: new Date(addedAt).toISOString(),
        pulls: gets,
        isPinned: isPinned(record),
      })
    }
    return held
  }

  async #page(
    namespace: KeptNamespace,
    options: {
      readonly repository?: Repository | undefined
      readonly after?: string | undefined
      readonly limit: number
    },
  ): Promise<{ readonly images: readonly ImageRecord[]; readonly next: string | undefined }> {
    const page = await this.#options.ledger.listImages(namespace.name, options)
    if (page === undefined) throw unknownNow(namespace)
    return page
  }

  #namespace(name: string): KeptNamespace {
    const namespace = this.#options.keeper.namespace(name)
    if (namespace !== undefined) return namespace
    const known = this.#options.keeper.namespaces.map((each) => each.name).join(', ')
    throw new GatewayError('ROUTE_UNKNOWN', `no upstream is called ${name}; there are ${known}`)
  }

  async #requireComplete(namespace: KeptNamespace): Promise<void> {
    if (!(await this.#options.ledger.isComplete(namespace.name))) throw unknownNow(namespace)
  }
}

function purged(image: ImageRecord, outcome: PurgedImage['outcome'], tag: string | undefined): PurgedImage {
  const { repository, digest, tags } = image
  return { repository, digest, tags: outcome === 'untagged' && tag !== undefined ? [tag] : tags, outcome }
}

function repositoryOf(text: string): Repository {
  const repository = parseRepository(text)
  if (repository === undefined) throw new GatewayError('NAME_INVALID', `${text} is no repository name`)
  return repository
}

function unknownNow({ name }: KeptNamespace): GatewayError {
  const text = `${name}: what it holds is being read from the folder; nothing was changed, try again in a moment`
  return new GatewayError('OVERLOADED', text, { retryAfterMs: 5_000 })
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)]
}
