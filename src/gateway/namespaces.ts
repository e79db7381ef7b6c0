/**
 * Every upstream that can be asked for, each with its client, store and cache, opened before the first request; and the
 * hosts that a pattern covers, opened when asked for. A stranger can name such hosts, so their number is bounded and
 * one gets a lasting place and a folder only with its first verified manifest.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../async/clock.ts'
import type { BlobEvent } from '../cache/blob-cache.ts'
import type { ManifestEvent } from '../cache/manifest-cache.ts'
import { NamespaceCache } from '../cache/namespace-cache.ts'
import type { RightsEvent } from '../cache/watched-upstream.ts'
import type { UpstreamConfig } from '../config/config.ts'
import { GatewayError } from '../errors.ts'
import { globMatcher } from '../access/globs.ts'
import type { Keeper } from '../keeping/keeper.ts'
import { Pins } from '../keeping/pins.ts'
import { expectedDiskBytes, UsageCount } from '../keeping/usage.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Route } from '../routing/route.ts'
import type { DataFolder } from '../store/fs/data-folder.ts'
import type { Store } from '../store/store.ts'
import { openUpstream } from '../upstream/client.ts'
import type { Upstream } from '../upstream/upstream.ts'
import type { UpstreamEvent } from '../upstream/options.ts'
import type { ProxyOptions } from '../upstream/egress.ts'
import { isSharedAccess, originOf, schedulePolicyOf, tagPolicyOf, upstreamOptionsOf } from './upstream-options.ts'

export interface NamespacesOptions {
  readonly upstreams: readonly UpstreamConfig[]
  readonly folder: DataFolder
  readonly ledger: Ledger
  readonly clock: Clock
  readonly version: string
  readonly proxy: ProxyOptions
  readonly keeper: Keeper
  /** `keep.idle` of all upstreams together: the shorter of it and an upstream's own counts. Infinity: never. */
  readonly idleMs: number
  readonly observer: NamespaceObserver
}

/** What is told while namespaces work. `label` is the upstream as configured: a pattern's hosts share the pattern's. */
export interface NamespaceObserver {
  /** A secret, before its first use: nothing may show it. */
  secret(secret: string): void
  upstream(name: string, label: string, event: UpstreamEvent): void
  fill(name: string, label: string, digest: Digest, event: BlobEvent): void
  manifest(name: string, label: string, event: ManifestEvent | RightsEvent): void
  completeFailed(name: string, label: string, repository: Repository, digest: Digest, error: unknown): void
}

interface Namespace {
  readonly name: string
  readonly config: UpstreamConfig
  readonly upstream: Upstream
  readonly store: Store
  readonly cache: NamespaceCache
}

/** Lasting places for hosts of patterns, and places for hosts that have shown no manifest yet. */
const MAX_PATTERN_HOSTS = 64
const MAX_PROVISIONAL_HOSTS = 16
/** How long a 404 is remembered: design, section 6. */
const NEGATIVE_TTL_MS = 30_000
const GRACE_MS = 5_000
const MAX_FILLS = 64
const MAX_QUEUED_FILLS = 2_048
const MANIFEST_MEMORY_BYTES = 32 * 1024 * 1024

export class Namespaces implements AsyncDisposable {
  readonly #options: NamespacesOptions
  readonly #declared = new Map<string, Namespace>()
  readonly #hosts = new Map<string, Promise<Namespace>>()
  readonly #provisional = new Set<string>()

  private constructor(options: NamespacesOptions) {
    this.#options = options
  }

  /** Opens every declared upstream. Needs no network. Rejects with STORE_UNUSABLE. */
  static async open(options: NamespacesOptions): Promise<Namespaces> {
    const namespaces = new Namespaces(options)
    try {
      for (const config of options.upstreams.filter(({ isPattern }) => !isPattern)) {
        namespaces.#declared.set(config.name, await namespaces.#open(config, config.name))
      }
    } catch (error) {
      await namespaces[Symbol.asyncDispose]()
      throw error
    }
    return namespaces
  }

  /** The cache behind a route. `needsManifest`: only a host that has shown a manifest already will do. */
  async cacheOf(route: Route, needsManifest: boolean): Promise<NamespaceCache> {
    const declared = this.#declared.get(route.upstream)
    if (declared !== undefined) return declared.cache
    const config = this.#options.upstreams.find(({ name }) => name === route.pattern)
    if (config === undefined) throw new GatewayError('ROUTE_UNKNOWN', `no upstream ${route.upstream} is declared`)
    const { cache } = await this.#openHost(config, route.upstream)
    if (needsManifest && this.#provisional.has(route.upstream)) {
      throw new GatewayError('BLOB_UNKNOWN', `${route.upstream}: no manifest of this host was pulled yet`)
    }
    return cache
  }

  /** Those that are open now, with a lasting place. */
  async list(): Promise<readonly { readonly name: string; readonly store: Store }[]> {
    const lasting = [...this.#hosts].filter(([name]) => !this.#provisional.has(name))
    const hosts = await Promise.allSettled(lasting.map(([, host]) => host))
    return [...this.#declared.values(), ...hosts.flatMap((host) => (host.status === 'fulfilled' ? [host.value] : []))]
  }

  storeOf(name: string): Store | undefined {
    return this.#declared.get(name)?.store
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const hosts = await Promise.allSettled(this.#hosts.values())
    const open = [
      ...this.#declared.values(),
      ...hosts.flatMap((host) => (host.status === 'fulfilled' ? [host.value] : [])),
    ]
    await Promise.allSettled(open.map((namespace) => this.#close(namespace)))
  }

  #openHost(config: UpstreamConfig, host: string): Promise<Namespace> {
    const open = this.#hosts.get(host)
    if (open !== undefined) return open
    // Written with the first verified manifest: proof of one in an earlier run. A folder alone proves nothing.
    const isKnown = existsSync(join(this.#options.folder.path, folderOf(host), 'origin.json'))
    if (this.#hosts.size - this.#provisional.size >= MAX_PATTERN_HOSTS) {
      const text = `${host}: ${MAX_PATTERN_HOSTS} hosts of patterns are in use; declare this one in a file of its own`
      return Promise.reject(new GatewayError('OVERLOADED', text))
    }
    if (!isKnown) this.#provisional.add(host)
    const opening = this.#open(config, host)
    this.#hosts.set(host, opening)
    opening.catch(() => {
      this.#hosts.delete(host)
      this.#provisional.delete(host)
    })
    this.#dropOldestProvisional()
    return opening
  }

  #dropOldestProvisional(): void {
    if (this.#provisional.size <= MAX_PROVISIONAL_HOSTS) return
    const [oldest] = this.#provisional
    if (oldest === undefined) return
    this.#provisional.delete(oldest)
    const opening = this.#hosts.get(oldest)
    this.#hosts.delete(oldest)
    void opening?.then((namespace) => this.#close(namespace)).catch(() => undefined)
  }

  async #open(config: UpstreamConfig, name: string): Promise<Namespace> {
    const { folder, ledger, clock, version, proxy, keeper, idleMs, observer } = this.#options
    const label = config.name
    const host = config.isPattern ? name : undefined
    const onEvent = (event: UpstreamEvent): void => observer.upstream(name, label, event)
    const onSecret = observer.secret.bind(observer)
    const upstream = openUpstream(upstreamOptionsOf(config, { version, proxy, onEvent, onSecret }, host))
    const store = await folder.openNamespace({ name: folderOf(name), origin: originOf(config, host) })
    const usage = new UsageCount()
    const cache = new NamespaceCache({
      namespace: name,
      store,
      ledger,
      upstream,
      clock,
      random: Math.random,
      tags: tagPolicyOf(config),
      negativeTtlMs: NEGATIVE_TTL_MS,
      isShared: isSharedAccess(config),
      isOffline: config.offline,
      identityOf: (repository) => upstream.identityOf(repository),
      schedule: schedulePolicyOf(config),
      maxFills: MAX_FILLS,
      maxQueuedFills: MAX_QUEUED_FILLS,
      graceMs: GRACE_MS,
      reserveRoom: (bytes, options) => keeper.reserve(name, bytes, options),
      onHeld: (digest, size) => usage.add(digest, expectedDiskBytes(size)),
      manifestMemoryBytes: MANIFEST_MEMORY_BYTES,
      complete: config.fill.complete,
      completeMaxBytes: config.fill.completeMax,
      onFill: (digest, event) => {
        if (event.kind === 'stopped') void keeper.measureLeftovers(name)
        observer.fill(name, label, digest, event)
      },
      onManifest: (event) => {
        if (event.kind === 'stored') {
          this.#provisional.delete(name)
          usage.add(event.digest, expectedDiskBytes(1))
        }
        observer.manifest(name, label, event)
      },
      onCompleteFailed: (repository, digest, error) => observer.completeFailed(name, label, repository, digest, error),
    })
    await keeper.add({
      name,
      label,
      store,
      caches: cache,
      pins: new Pins(store, config.keep.pin, globMatcher),
      usage,
      quotaBytes: config.keep.quota,
      idleMs: Math.min(config.keep.idle, idleMs),
    })
    return { name, config, upstream, store, cache }
  }

  async #close({ name, cache, store, upstream }: Namespace): Promise<void> {
    this.#options.keeper.remove(name)
    await cache.close()
    await upstream.close()
    await store.close()
  }
}

/** The folder of a namespace: a port's colon is no character for one. */
export function folderOf(name: string): string {
  return name.replace(':', '_')
}
