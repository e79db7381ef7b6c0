/**
 * Manifests of one namespace. By digest: for ever, without asking. By tag: fresh within the ttl, then confirmed by one
 * shared check, and what we hold when the check gives no answer in time. Bodies are hashed before they are stored and
 * before they are served.
 */
import { LRUCache } from 'lru-cache'
import { abortable, delay } from '../async/abort.ts'
import type { Clock } from '../async/clock.ts'
import type { Guards } from '../async/guards.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { codeOf, GatewayError, isNonAnswer, type ErrorCode } from '../errors.ts'
import type { Ledger, TagRecord } from '../ledger/ledger.ts'
import { algorithmOf, digestOf, type Digest } from '../oci/digest.ts'
import { childrenOf, manifestTypeFor, parseManifest, type Manifest } from '../oci/manifest.ts'
import { isDigest, type Reference, type Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { Upstream } from '../upstream/upstream.ts'
import { freshness, maxWaitFor, type TagPolicy } from './freshness.ts'
import type { Membership } from './membership.ts'
import { NegativeCache } from './negative.ts'
import { WholeImages } from './whole-images.ts'

export type ManifestEvent =
  | {
      readonly kind: 'revalidated'
      readonly repository: Repository
      readonly tag: Tag
      readonly digest: Digest
      readonly isMoved: boolean
    }
  | ({ readonly kind: 'served_stale'; readonly repository: Repository; readonly tag: Tag } & StaleReason)
  | { readonly kind: 'gone'; readonly repository: Repository; readonly tag: Tag; readonly isKept: boolean }
  | { readonly kind: 'stored'; readonly repository: Repository; readonly digest: Digest }
  | { readonly kind: 'quarantined'; readonly repository: Repository; readonly digest: Digest }
  | { readonly kind: 'not_stored'; readonly repository: Repository; readonly digest: Digest; readonly error: unknown }

/** Why what we hold stands in for the upstream's answer. `SLOW`: it had not answered in time. */
export interface StaleReason {
  readonly code: ErrorCode | 'SLOW'
  readonly reason: string
}

export interface ManifestCacheOptions {
  readonly namespace: string
  readonly store: Store
  readonly ledger: Ledger
  readonly upstream: Upstream
  readonly membership: Membership
  readonly clock: Clock
  readonly tags: TagPolicy
  readonly negativeTtlMs: number
  /** Memory for hot manifests, in bytes. */
  readonly memoryBytes: number
  readonly isOffline: boolean
  /** Held while a manifest is written, so that its bytes are not removed meanwhile. */
  readonly guards: Guards
  readonly onEvent: (event: ManifestEvent) => void
}

export interface ManifestRequest {
  readonly repository: Repository
  readonly reference: Reference
  /** The client's: ends its wait only. */
  readonly signal: AbortSignal
}

export type ManifestOutcome = 'hit' | 'miss' | 'joined' | 'revalidated' | 'stale'

export interface FoundManifest {
  readonly manifest: Manifest
  readonly outcome: ManifestOutcome
}

const MAX_TAG_RECORDS = 50_000
const MAX_GONE_TAGS = 10_000

interface Check {
  readonly result: Promise<TagRecord>
  readonly startedAt: number
}

export class ManifestCache {
  readonly #options: ManifestCacheOptions
  readonly #memory: LRUCache<string, Manifest>
  readonly #records = new LRUCache<string, TagRecord>({ max: MAX_TAG_RECORDS })
  readonly #goneSince = new LRUCache<string, number>({ max: MAX_GONE_TAGS })
  readonly #fetches = new SingleFlight<Manifest>()
  readonly #checks = new Map<string, Check>()
  /** Downloads and checks under way. */
  readonly #running = new Set<Promise<unknown>>()
  readonly #negative: NegativeCache
  readonly #whole: WholeImages
  readonly #closing = new AbortController()
  /** Counts removals. */
  #forgotten = 0

  constructor(options: ManifestCacheOptions) {
    this.#options = options
    this.#negative = new NegativeCache(options.clock, options.negativeTtlMs)
    this.#whole = new WholeImages({ ...options, findHeld: this.findHeld.bind(this) })
    this.#memory = new LRUCache({
      maxSize: Math.max(1, options.memoryBytes),
      sizeCalculation: (manifest, key) => manifest.bytes.length + key.length + 128,
    })
  }

  /** Finds a manifest, here or at the upstream. Rejects with a `GatewayError` when neither has it. */
  async find(request: ManifestRequest): Promise<FoundManifest> {
    const { reference } = request
    return isDigest(reference) ? this.#byDigest(request, reference) : this.#byTag(request, reference)
  }

  /** The manifest of a tag that may well not exist: asked by HEAD first, which counts against nobody's pulls. */
  async findIfThere(repository: Repository, tag: Tag, signal: AbortSignal): Promise<Manifest | undefined> {
    try {
      if ((await this.readRecord(repository, tag)) === undefined) await this.#askWhether(repository, tag, signal)
      return (await this.find({ repository, reference: tag, signal })).manifest
    } catch (error) {
      if (isGone(error)) return undefined
      throw error
    }
  }

  /** The manifest when it is here, readable for the repository and intact; never asks anybody. */
  async findHeld(repository: Repository, digest: Digest): Promise<Manifest | undefined> {
    const key = keyOf(repository, digest)
    const remembered = this.#memory.get(key)
    if (remembered !== undefined) return remembered
    const { store, membership } = this.#options
    const forgotten = this.#forgotten
    const isLinked = await membership.isLinked(repository, 'manifest', digest)
    if (!isLinked && !(await membership.isNamed(repository, 'manifest', digest))) return undefined
    const manifest = await store.readManifest(repository, digest)
    if (manifest === undefined) return undefined
    if (digestOf(manifest.bytes, algorithmOf(digest)) !== digest) {
      await store.quarantine(digest)
      this.#options.onEvent({ kind: 'quarantined', repository, digest })
      return undefined
    }
    // What was removed while it was being read must not stay in memory.
    if (forgotten !== this.#forgotten) return manifest
    // It came by way of another repository: from now on this one has it, and names what it names.
    if (!isLinked) await this.#keep(repository, manifest)
    this.#memory.set(key, manifest)
    return manifest
  }

  /** What we know of a tag without asking; undefined when nothing. */
  async readRecord(repository: Repository, tag: Tag): Promise<TagRecord | undefined> {
    const { ledger, namespace, store } = this.#options
    const key = keyOf(repository, tag)
    const known = this.#records.get(key) ?? (await ledger.readTag(namespace, repository, tag))
    if (known !== undefined) {
      this.#records.set(key, known)
      return known
    }
    // The folder alone is enough: a tag it names counts as held, and as not confirmed since.
    const digest = await store.readTag(repository, tag)
    return digest === undefined ? undefined : { digest, checkedAt: 0 }
  }

  /** Drops from memory what was removed from the store. */
  forget(
    repository: Repository,
    { tags, manifests }: { readonly tags: readonly Tag[]; readonly manifests: readonly Digest[] },
  ): void {
    this.#forgotten++
    for (const reference of [...tags, ...manifests]) {
      const key = keyOf(repository, reference)
      this.#memory.delete(key)
      this.#records.delete(key)
      this.#goneSince.delete(key)
    }
  }

  /** Gives up what is asked of the upstream; resolves when nothing is written any more. */
  async close(): Promise<void> {
    this.#closing.abort(new GatewayError('OVERLOADED', `${this.#options.namespace}: the gateway is stopping`))
    await Promise.allSettled(this.#running)
  }

  async #askWhether(repository: Repository, tag: Tag, signal: AbortSignal): Promise<void> {
    const key = keyOf(repository, tag)
    this.#negative.check(key)
    try {
      await this.#options.upstream.headManifest(repository, tag, { signal, priority: 'background' })
    } catch (error) {
      throw this.#negative.remember(key, error)
    }
  }

  async #byDigest({ repository, signal }: ManifestRequest, digest: Digest): Promise<FoundManifest> {
    const held = await this.findHeld(repository, digest)
    if (held !== undefined) return { manifest: held, outcome: 'hit' }
    this.#negative.check(keyOf(repository, digest))
    const outcome = this.#fetches.has(keyOf(repository, digest)) ? 'joined' : 'miss'
    return { manifest: await this.#fetch(repository, digest, signal), outcome }
  }

  async #byTag({ repository, signal }: ManifestRequest, tag: Tag): Promise<FoundManifest> {
    const { clock, tags, isOffline } = this.#options
    const record = await this.readRecord(repository, tag)
    const held = record && (await this.findHeld(repository, record.digest))
    if (record === undefined || held === undefined) return this.#coldTag(repository, tag, signal)
    if (tags.isImmutable(repository, tag)) return { manifest: held, outcome: 'hit' }
    if (isOffline) return this.#answerOffline(repository, tag, held)
    const age = freshness(record, tag, clock.now(), tags)
    if (age === 'fresh') return { manifest: held, outcome: 'hit' }
    try {
      const confirmed = await this.#confirm({ repository, tag, record, isServable: age === 'stale' }, signal)
      const manifest = confirmed.digest === held.digest ? held : await this.findHeld(repository, confirmed.digest)
      if (manifest !== undefined) return { manifest, outcome: 'revalidated' }
      return await this.#coldTag(repository, tag, signal)
    } catch (error) {
      if (signal.aborted) throw error
      const stale = await this.#staleReason(repository, tag, error)
      if (stale === undefined || age === 'expired') throw error
      // A denial may have taken back the right to what was held a moment ago.
      if (stale.code === 'UPSTREAM_DENIED' && (await this.findHeld(repository, held.digest)) === undefined) throw error
      return this.#serveStale(repository, tag, held, stale)
    }
  }

  /** Offline is an outage that was chosen: what is whole is a hit, what is not has a stand-in. */
  async #answerOffline(repository: Repository, tag: Tag, held: Manifest): Promise<FoundManifest> {
    const manifest = await this.#whole.standInFor(repository, tag, held)
    if (manifest === held) return { manifest, outcome: 'hit' }
    const reason = `${this.#options.namespace} is configured offline`
    return this.#serveStale(repository, tag, held, { code: 'OFFLINE', reason })
  }

  /** What we hold stands in for the answer; where it is not whole and there is no answer at all, a former one that is. */
  async #serveStale(
    repository: Repository,
    tag: Tag,
    held: Manifest,
    { code, reason }: StaleReason,
  ): Promise<FoundManifest> {
    const isAnswered = code === 'UPSTREAM_DENIED' || code === 'MANIFEST_UNKNOWN' || code === 'NAME_UNKNOWN'
    const manifest = isAnswered ? held : await this.#whole.standInFor(repository, tag, held)
    const instead = `; ${held.digest} is not whole here, so ${manifest.digest} stands in`
    const why = manifest === held ? reason : `${reason}${instead}`
    this.#options.onEvent({ kind: 'served_stale', repository, tag, code, reason: why })
    return { manifest, outcome: 'stale' }
  }

  async #coldTag(repository: Repository, tag: Tag, signal: AbortSignal): Promise<FoundManifest> {
    const key = keyOf(repository, tag)
    this.#negative.check(key)
    const outcome = this.#fetches.has(key) ? 'joined' : 'miss'
    return { manifest: await this.#fetch(repository, tag, signal), outcome }
  }

  /** Why what we hold may stand in for `error`; undefined when the error is the answer. */
  async #staleReason(repository: Repository, tag: Tag, error: unknown): Promise<StaleReason | undefined> {
    if (error instanceof CheckTakesLong) return { code: 'SLOW', reason: error.message }
    if (!(error instanceof GatewayError)) return undefined
    const { code, message: reason } = error
    // OVERLOADED: it could not be asked at all.
    if (isNonAnswer(error) || code === 'UPSTREAM_DENIED' || code === 'OVERLOADED') return { code, reason }
    if (!isGone(error)) return undefined
    return (await this.#keepsGone(repository, tag)) ? { code, reason } : undefined
  }

  /** Whether a tag that the upstream has no more is still served. If not its pointer goes; the manifest stays. */
  async #keepsGone(repository: Repository, tag: Tag): Promise<boolean> {
    const { clock, tags, onEvent, store, ledger, namespace } = this.#options
    const key = keyOf(repository, tag)
    const since = this.#goneSince.get(key) ?? clock.now()
    this.#goneSince.set(key, since)
    const isKept = tags.onGone === 'keep' && clock.now() - since < tags.goneForMs
    onEvent({ kind: 'gone', repository, tag, isKept })
    if (isKept) return true
    this.#records.delete(key)
    ledger.removeTag(namespace, repository, tag)
    await store.removeTag(repository, tag)
    return false
  }

  /** Waits for the one check of this tag, but no longer than a client waits for an answer that we hold already. */
  async #confirm({ repository, tag, record, isServable }: HeldTag, signal: AbortSignal): Promise<TagRecord> {
    const { clock, tags } = this.#options
    const key = keyOf(repository, tag)
    this.#negative.check(key)
    const check = this.#checks.get(key) ?? this.#startCheck(key, repository, tag, record)
    // Too old to be served: then only the upstream's answer will do.
    if (!isServable) return abortable(check.result, signal)
    // Counted from the start of the check: who comes late does not wait again for what others waited for.
    const leftMs = maxWaitFor(record, clock.now(), tags) - (performance.now() - check.startedAt)
    if (leftMs <= 0) throw new CheckTakesLong()
    const given = new AbortController()
    try {
      const late = delay(leftMs, given.signal).then(() => Promise.reject(new CheckTakesLong()))
      return await abortable(Promise.race([check.result, late]), signal)
    } finally {
      given.abort()
    }
  }

  #startCheck(key: string, repository: Repository, tag: Tag, record: TagRecord): Check {
    const result = this.#check(repository, tag, record)
      .catch((error: unknown) => Promise.reject(this.#negative.remember(key, error)))
      .finally(() => this.#checks.delete(key))
    // It goes on when every client has been served the stale answer.
    void this.#track(result)
    const check = { result, startedAt: performance.now() }
    this.#checks.set(key, check)
    return check
  }

  /** Asks by HEAD where the tag points; a new digest counts only once its manifest is here and verified. */
  async #check(repository: Repository, tag: Tag, record: TagRecord): Promise<TagRecord> {
    const { upstream, onEvent } = this.#options
    const { signal } = this.#closing
    const head = await upstream.headManifest(repository, tag, { signal })
    if (head.digest === undefined) {
      const fetched = await this.#fetch(repository, tag, signal)
      return { digest: fetched.digest, checkedAt: this.#options.clock.now() }
    }
    const manifest = await this.#bring(repository, tag, head.digest)
    const { digest } = manifest
    onEvent({ kind: 'revalidated', repository, tag, digest, isMoved: digest !== record.digest })
    return this.#point(repository, tag, manifest)
  }

  /** Sees to it that the manifest a tag was said to point to is here; gives the one that it points to then. */
  async #bring(repository: Repository, tag: Tag, digest: Digest): Promise<Manifest> {
    const { signal } = this.#closing
    const held = await this.findHeld(repository, digest)
    if (held !== undefined) return held
    try {
      return await this.#fetch(repository, digest, signal)
    } catch (error) {
      // The tag was just there, so it moved on meanwhile, or HEAD is told from elsewhere: what GET gives is the truth.
      if (isGone(error)) return this.#fetch(repository, tag, signal)
      throw error
    }
  }

  async #fetch(repository: Repository, reference: Reference, signal: AbortSignal): Promise<Manifest> {
    const { namespace, isOffline } = this.#options
    const key = keyOf(repository, reference)
    if (isOffline)
      throw new GatewayError('OFFLINE', `${namespace}/${key}: not held, and ${namespace} is configured offline`)
    return this.#fetches.join(key, signal, (shared) => this.#track(this.#fetchOnce(repository, reference, shared)))
  }

  async #fetchOnce(repository: Repository, reference: Reference, signal: AbortSignal): Promise<Manifest> {
    const key = keyOf(repository, reference)
    try {
      const manifest = await this.#download(repository, reference, AbortSignal.any([signal, this.#closing.signal]))
      await this.#keep(repository, manifest)
      this.#negative.forget(key)
      if (!isDigest(reference)) await this.#point(repository, reference, manifest)
      return manifest
    } catch (error) {
      throw this.#negative.remember(key, error)
    }
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work)
    work.catch(() => undefined).finally(() => this.#running.delete(work))
    return work
  }

  async #download(repository: Repository, reference: Reference, signal: AbortSignal): Promise<Manifest> {
    const { upstream, namespace } = this.#options
    const { bytes, mediaType, claimedDigest } = await upstream.fetchManifest(repository, reference, { signal })
    const expected = isDigest(reference) ? reference : claimedDigest
    const digest = digestOf(bytes, expected === undefined ? 'sha256' : algorithmOf(expected))
    const what = `GET ${namespace}/${keyOf(repository, reference)}`
    if (expected !== undefined && digest !== expected) {
      throw new GatewayError(
        'UPSTREAM_INVALID',
        `${what}: the ${bytes.length} bytes that came hash to ${digest}, not ${expected}`,
      )
    }
    const verdict = manifestTypeFor(mediaType, bytes)
    if ('problem' in verdict) throw new GatewayError('UPSTREAM_INVALID', `${what}: ${verdict.problem}`)
    return { digest, mediaType: verdict.mediaType, bytes }
  }

  /** Stores a verified manifest; a disk that cannot take it must not keep the client from it. */
  async #keep(repository: Repository, manifest: Manifest): Promise<void> {
    const { store, ledger, namespace, onEvent, clock, guards } = this.#options
    using _hold = await guards.hold(manifest.digest)
    this.#memory.set(keyOf(repository, manifest.digest), manifest)
    try {
      await store.writeManifest(repository, manifest)
      onEvent({ kind: 'stored', repository, digest: manifest.digest })
    } catch (error) {
      onEvent({ kind: 'not_stored', repository, digest: manifest.digest, error })
    }
    const parsed = parseManifest(manifest.bytes)
    if (parsed === undefined) return
    ledger.writeManifest(namespace, repository, manifest.digest, childrenOf(parsed), clock.now())
  }

  /** Points a tag at a manifest that was just here, confirmed now. Brings it back if it was evicted since. */
  async #point(repository: Repository, tag: Tag, manifest: Manifest): Promise<TagRecord> {
    const { store, ledger, namespace, clock, onEvent, guards, membership } = this.#options
    const { digest } = manifest
    const key = keyOf(repository, tag)
    using _hold = await guards.hold(digest)
    if (!(await membership.isLinked(repository, 'manifest', digest))) await this.#keep(repository, manifest)
    const known = await this.readRecord(repository, tag)
    const record = { digest, checkedAt: clock.now() }
    this.#records.set(key, record)
    this.#goneSince.delete(key)
    this.#negative.forget(key)
    if (known?.digest !== digest || known.checkedAt === 0) {
      await store
        .writeTag(repository, tag, digest)
        .catch((error: unknown) => onEvent({ kind: 'not_stored', repository, digest, error }))
    }
    ledger.writeTag(namespace, repository, tag, record)
    return record
  }
}

/** A tag that is held, and whether what is held may be served without the upstream's answer. */
interface HeldTag {
  readonly repository: Repository
  readonly tag: Tag
  readonly record: TagRecord
  readonly isServable: boolean
}

function isGone(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'MANIFEST_UNKNOWN' || code === 'NAME_UNKNOWN'
}

/** The check has taken longer than a client should wait. */
class CheckTakesLong extends Error {
  override readonly name = 'CheckTakesLong'
  constructor() {
    super('the upstream has not answered in the time a client waits')
  }
}

function keyOf(repository: Repository, reference: Reference): string {
  return isDigest(reference) ? `${repository}@${reference}` : `${repository}:${reference}`
}
