/**
 * The upstream as one namespace sees it, and what its answers say about our right to each repository. A manifest that it
 * gives confirms the right; a denial that holds (`denial.ts`) takes it back: links are revoked, bytes stay.
 */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../async/clock.ts'
import { codeOf, GatewayError } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { Reference } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { BlobCallOptions, CallOptions, Upstream } from '../upstream/upstream.ts'
import { CONFIRM_AFTER_MS, judgeDenial, type DenialVerdict } from './denial.ts'

export type RightsEvent =
  | {
      readonly kind: 'denied'
      readonly repository: Repository
      readonly verdict: Exclude<DenialVerdict, 'revoked'>
      readonly reason: string
    }
  | { readonly kind: 'revoked'; readonly repository: Repository; readonly manifests: number; readonly reason: string }

export interface WatchedUpstreamOptions {
  readonly namespace: string
  readonly upstream: Upstream
  readonly store: Store
  readonly clock: Clock
  readonly isOffline: boolean
  /** See `DenialFacts`. */
  readonly deniedForMs: number
  /** A repository read by a credential is confirmed again after this, also when only digests are asked. */
  readonly recheckMs: number
  /** The credential that reads a repository, as a name; undefined: none, we are anonymous there. */
  readonly identityOf: (repository: Repository) => string | undefined
  /** Its links are revoked: what is in memory of it must go too. */
  readonly onRevoked: (repository: Repository, manifests: readonly Digest[]) => void
  readonly onEvent: (event: RightsEvent) => void
}

const MAX_REPOSITORIES = 10_000
const MAX_CONFIRMATIONS = 8
/** Other repositories asked whether the credential still works, and names looked through to find them. */
const MAX_WITNESSES = 3
const MAX_NAMES = 500

export class WatchedUpstream implements Upstream {
  readonly name: string
  readonly #options: WatchedUpstreamOptions
  readonly #deniedSince = new LRUCache<Repository, number>({ max: MAX_REPOSITORIES })
  readonly #confirmedAt = new LRUCache<Repository, number>({ max: MAX_REPOSITORIES })
  readonly #askedAt = new LRUCache<Repository, number>({ max: MAX_REPOSITORIES })
  /** By credential, of which there are as many as the configuration names. */
  readonly #workedAt = new Map<string, number>()
  readonly #judging = new Map<Repository, Promise<void>>()
  readonly #running = new Set<Promise<void>>()
  readonly #closing = new AbortController()

  constructor(options: WatchedUpstreamOptions) {
    this.#options = options
    this.name = options.upstream.name
  }

  headManifest: Upstream['headManifest'] = (repository, reference, options) =>
    this.#watch({ repository, reference, options }, () =>
      this.#options.upstream.headManifest(repository, reference, options),
    )

  fetchManifest: Upstream['fetchManifest'] = (repository, reference, options) =>
    this.#watch({ repository, reference, options }, () =>
      this.#options.upstream.fetchManifest(repository, reference, options),
    )

  headBlob: Upstream['headBlob'] = (repository, digest, options) =>
    this.#options.upstream.headBlob(repository, digest, options)

  openBlob: Upstream['openBlob'] = (repository, digest, options: BlobCallOptions) =>
    this.#options.upstream.openBlob(repository, digest, options)

  listTags: Upstream['listTags'] = (repository, query, options) =>
    this.#options.upstream.listTags(repository, query, options)

  listReferrers: Upstream['listReferrers'] = (repository, digest, query, options) =>
    this.#options.upstream.listReferrers(repository, digest, query, options)

  /**
   * Told of every manifest served from here. Asks the upstream in the background whether it still lets us have it, when
   * that was not confirmed for long or is in doubt.
   */
  confirm(repository: Repository, digest: Digest): void {
    const { isOffline, identityOf, recheckMs, clock } = this.#options
    if (isOffline || this.#closing.signal.aborted || identityOf(repository) === undefined) return
    const now = clock.now()
    const isDue = this.#deniedSince.has(repository) || !isWithin(this.#confirmedAt.get(repository), now, recheckMs)
    if (!isDue || isWithin(this.#askedAt.get(repository), now, CONFIRM_AFTER_MS)) return
    if (this.#running.size >= MAX_CONFIRMATIONS) return
    const options: CallOptions = { signal: this.#closing.signal, priority: 'background' }
    const asked = this.headManifest(repository, digest, options).then(ignore, ignore)
    this.#running.add(asked)
    void asked.finally(() => this.#running.delete(asked))
  }

  /** Ends what it asks by itself. The upstream behind it stays open. */
  async close(): Promise<void> {
    this.#closing.abort(new GatewayError('OVERLOADED', `${this.#options.namespace}: the gateway is stopping`))
    await Promise.all(this.#running)
  }

  async #watch<T>(question: Question, ask: () => Promise<T>): Promise<T> {
    // An answer is about the time it was asked for: what comes late is no second one.
    const asked = { ...question, at: this.#options.clock.now() }
    this.#askedAt.set(asked.repository, asked.at)
    try {
      const answer = await ask()
      this.#allowed(asked.repository, asked.at)
      return answer
    } catch (error) {
      const code = codeOf(error)
      // A 404 tells nothing about rights, but it is an answer: it need not be asked for again so soon.
      if (code === 'MANIFEST_UNKNOWN' || code === 'NAME_UNKNOWN') this.#answered(asked.repository, asked.at)
      if (error instanceof GatewayError && code === 'UPSTREAM_DENIED') await this.#denied(asked, error)
      throw error
    }
  }

  #answered(repository: Repository, at: number): void {
    this.#confirmedAt.set(repository, at)
  }

  #allowed(repository: Repository, at: number): void {
    this.#answered(repository, at)
    this.#deniedSince.delete(repository)
    const identity = this.#options.identityOf(repository)
    if (identity !== undefined) this.#workedAt.set(identity, at)
  }

  /** One judgement at a time of each repository; who is denied meanwhile waits for it. */
  async #denied(asked: Asked, error: GatewayError): Promise<void> {
    const { repository } = asked
    const running = this.#judging.get(repository)
    if (running !== undefined) return running.catch(ignore)
    const judged = this.#followDenial(asked, error).finally(() => this.#judging.delete(repository))
    this.#judging.set(repository, judged)
    await judged
  }

  async #followDenial(asked: Asked, error: GatewayError): Promise<void> {
    const { repository, at } = asked
    const { store, onEvent } = this.#options
    // Of a repository that nothing is held of there is nothing to take back, and strangers can name any number.
    const held = (await store.listRevisions(repository)).filter(({ isRevoked }) => !isRevoked)
    if (held.length === 0 || !(await this.#isRegistrys(asked, error))) return
    // A clock that was set back would make the first denial one of the future.
    this.#deniedSince.set(repository, Math.min(this.#deniedSince.get(repository) ?? at, at))
    const reason = error.message
    const verdict = await this.#verdictOn(asked)
    if (verdict !== 'revoked') return onEvent({ kind: 'denied', repository, verdict, reason })
    const manifests = held.map(({ digest }) => digest)
    await this.#revoke(repository, manifests)
    onEvent({ kind: 'revoked', repository, manifests: manifests.length, reason })
  }

  /** Whether a denial has a registry's error code. HEAD has no body, so GET is asked what it would have said. */
  async #isRegistrys({ repository, reference, options, at }: Asked, error: GatewayError): Promise<boolean> {
    if (error.upstreamCode !== undefined) return true
    try {
      await this.#options.upstream.fetchManifest(repository, reference, options)
      this.#allowed(repository, at)
      return false
    } catch (again) {
      if (options.signal.aborted) throw again
      return again instanceof GatewayError && again.code === 'UPSTREAM_DENIED' && again.upstreamCode !== undefined
    }
  }

  async #verdictOn(asked: Asked): Promise<DenialVerdict> {
    const verdict = this.#judge(asked)
    if (verdict !== 'unproven' || !(await this.#worksElsewhere(asked))) return verdict
    return this.#judge(asked)
  }

  #judge({ repository, at }: Asked): DenialVerdict {
    const { identityOf, deniedForMs } = this.#options
    const identity = identityOf(repository)
    return judgeDenial({
      now: at,
      deniedSince: this.#deniedSince.get(repository) ?? at,
      isAnonymous: identity === undefined,
      deniedForMs,
      workedElsewhereAt: identity === undefined ? undefined : this.#workedAt.get(identity),
    })
  }

  /** Asks for something else that the same credential opened once. */
  async #worksElsewhere({ repository, options, at }: Asked): Promise<boolean> {
    const { store, upstream, identityOf } = this.#options
    const identity = identityOf(repository)
    let asked = 0
    for (const other of await store.listRepositories({ limit: MAX_NAMES })) {
      if (other === repository || identityOf(other) !== identity || this.#deniedSince.has(other)) continue
      const witness = (await store.listRevisions(other)).find(({ isRevoked }) => !isRevoked)
      if (witness === undefined) continue
      if (++asked > MAX_WITNESSES) return false
      try {
        await upstream.headManifest(other, witness.digest, options)
        this.#allowed(other, at)
        return true
      } catch (error) {
        if (options.signal.aborted) throw error
      }
    }
    return false
  }

  /** Manifests last: whatever a crash leaves linked makes the next denial come here again. */
  async #revoke(repository: Repository, manifests: readonly Digest[]): Promise<void> {
    const { store, onRevoked } = this.#options
    for await (const digest of store.listBlobLinks(repository)) await store.revokeLink(repository, 'blob', digest)
    for (const digest of manifests) await store.revokeLink(repository, 'manifest', digest)
    onRevoked(repository, manifests)
  }
}

interface Question {
  readonly repository: Repository
  readonly reference: Reference
  readonly options: CallOptions
}

interface Asked extends Question {
  /** Epoch ms. */
  readonly at: number
}

/** Whether `at` was less than `ms` ago. A clock that was set back makes it unknown. */
function isWithin(at: number | undefined, now: number, ms: number): boolean {
  return at !== undefined && now >= at && now - at < ms
}

function ignore(): void {
  // The watch has seen it already.
}
