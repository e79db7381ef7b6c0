/**
 * The composition root: from a `Config` to a running gateway and back. The only file that knows every part; it builds
 * them in the order of a request's way and ends them in the other direction.
 */
import { readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { systemClock, type Clock } from './async/clock.ts'
import { createAdminApp } from './admin/app.ts'
import type { Door } from './access/door.ts'
import { networkMatcher } from './access/networks.ts'
import { ClientAccess } from './gateway/client-access.ts'
import type { Config, ConfigPlaces, ListenerConfig, UpstreamConfig } from './config/config.ts'
import { readEnvironmentProxy } from './config/environment.ts'
import { formatPlace } from './config/source.ts'
import { createRegistryApp } from './http/app.ts'
import type { TlsOptions } from './http/certificates.ts'
import { listenerFor, Listener } from './http/server.ts'
import { ReplyWriter } from './http/writer.ts'
import { Desk } from './keeping/desk.ts'
import { Keeper, type KeeperOptions } from './keeping/keeper.ts'
import type { OperatorDesk } from './keeping/operator.ts'
import type { Ledger } from './ledger/ledger.ts'
import { rebuildNamespace } from './ledger/rebuild.ts'
import { openSqliteLedger } from './ledger/sqlite/sqlite-ledger.ts'
import { Namespaces } from './gateway/namespaces.ts'
import { Observer } from './gateway/observer.ts'
import { parseManifest } from './oci/manifest.ts'
import type { CatalogPart } from './registry/catalog.ts'
import { createHandlers } from './registry/handlers.ts'
import type { CatalogRequest } from './registry/request.ts'
import { RouteTable, type RouteEntry } from './routing/table.ts'
import { DataFolder } from './store/fs/data-folder.ts'
import type { Log } from './telemetry/log.ts'
import { Metrics } from './telemetry/metrics.ts'

export interface GatewayOptions {
  readonly config: Config
  readonly places: ConfigPlaces
  readonly log: Log
  readonly version: string
  /** Ends a start under way, between two of its steps. */
  readonly signal?: AbortSignal
  /** What ages and expires goes by this. Default: the system's. */
  readonly clock?: Clock
  /** How often, and from what age on, things are evicted and swept. Default: the keeper's own. */
  readonly keeping?: KeepingTimes
}

export type KeepingTimes = Partial<
  Pick<KeeperOptions, 'imageMinAgeMs' | 'orphanMinAgeMs' | 'intervalMs' | 'sweepIntervalMs' | 'startDelayMs'>
>

export interface BoundAddress {
  /** Empty: all interfaces. */
  readonly address: string
  /** The port it got, where the configuration said 0. */
  readonly port: number
  readonly tls: boolean
}

export interface Gateway {
  /** In the order of `Config.listeners`. */
  readonly listeners: readonly BoundAddress[]
  readonly admin: { readonly address: string; readonly port: number }
  /** Drains and ends; `failure` ends without draining. Idempotent. */
  close(reason: string): Promise<void>
}

/**
 * Starts. Needs no upstream and no DNS. Rejects with STORE_UNUSABLE, PORT_UNAVAILABLE or CONFIG_INVALID, or with
 * the reason of `signal`, having let go of whatever was open.
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const running = new RunningGateway(options)
  try {
    await running.start()
    return running
  } catch (error) {
    await running.abandon()
    throw error
  }
}

class RunningGateway implements Gateway {
  readonly #options: GatewayOptions
  readonly #parts = new AsyncDisposableStack()
  readonly #stopping = new AbortController()
  readonly #registryListeners: Listener[] = []
  readonly #allListeners: Listener[] = []
  #closed: Promise<void> | undefined
  listeners: readonly BoundAddress[] = []
  admin: { readonly address: string; readonly port: number } = { address: '', port: 0 }

  constructor(options: GatewayOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const { config, places, log, version, signal, clock = systemClock } = this.#options
    const routes = RouteTable.from(
      config.upstreams.map((upstream) => this.#routeEntry(upstream)),
      ownHostsOf(config),
    )
    const folder = this.#parts.use(await DataFolder.open({ path: config.data }))
    signal?.throwIfAborted()
    const ledger = await openSqliteLedger({
      path: config.ledger,
      onError: (error) => log.event('ledger.failed', { reason: error.message }),
    })
    this.#parts.defer(() => ledger.close())
    signal?.throwIfAborted()
    const metrics = new Metrics()
    this.#parts.defer(() => metrics.close())
    metrics.watch('entrepot_log_lines_dropped', 'Log lines that nobody read fast enough', () => log.dropped)
    metrics.watch('entrepot_ledger_rows_dropped', 'Facts the ledger could not take', () => ledger.droppedRows)
    const observer = new Observer({ log, metrics })
    const keeper = new Keeper({
      ...this.#options.keeping,
      ledger,
      clock,
      random: Math.random,
      quotaBytes: config.keep.quota,
      freeFloorBytes: await freeFloorOf(config),
      observe: observer.keeping.bind(observer),
      learn: ({ name, store }, signal) =>
        rebuildNamespace({ namespace: name, store, ledger, parse: parseManifest, signal, report: () => undefined }),
    })
    metrics.watchUpstreams('entrepot_store_bytes', 'Bytes held on the disk', () =>
      keeper.namespaces.map(({ label, usage }) => [label, usage.bytes]),
    )
    const namespaces = await Namespaces.open({
      upstreams: config.upstreams,
      folder,
      ledger,
      clock,
      version,
      proxy: readEnvironmentProxy(),
      keeper,
      idleMs: config.keep.idle,
      observer,
    })
    this.#parts.use(namespaces)
    signal?.throwIfAborted()
    // Ends before the stores it works on.
    this.#parts.use(keeper)
    const access = this.#parts.use(new ClientAccess({ config, places, clock, log }))
    const writer = new ReplyWriter()
    metrics.watch('entrepot_read_buffer_bytes', 'Bytes in buffers between files and clients', () => writer.bufferBytes)
    await this.#listen(routes, { namespaces, observer, access, writer })
    await this.#listenAdmin(metrics, new Desk({ keeper, ledger, observe: observer.keeping.bind(observer) }))
    signal?.throwIfAborted()
    void this.#rebuildLedger(namespaces, ledger)
    keeper.start()
    const listeners = this.#registryListeners.map(({ url }) => url).join(' ')
    log.event('gateway.started', { version, listeners, upstreams: config.upstreams.length })
  }

  close(reason: string): Promise<void> {
    this.#closed ??= this.#close(reason)
    return this.#closed
  }

  async abandon(): Promise<void> {
    this.#stopping.abort(new DOMException('the gateway did not start', 'AbortError'))
    await Promise.allSettled(this.#allListeners.map((listener) => listener.close()))
    await this.#parts.disposeAsync()
  }

  async #close(reason: string): Promise<void> {
    const { config, log } = this.#options
    this.#stopping.abort(new DOMException('the gateway is stopping', 'AbortError'))
    // The delay is for load balancers, which stop a process by SIGTERM; who presses Ctrl-C looks at it and waits.
    const drain = {
      delayMs: reason === 'SIGTERM' ? config.drain.delay : 0,
      timeoutMs: reason === 'failure' ? 0 : config.drain.timeout,
    }
    const drained = await Promise.all(this.#registryListeners.map((listener) => listener.drain(drain)))
    await Promise.allSettled(this.#allListeners.map((listener) => listener.close()))
    await this.#parts.disposeAsync()
    log.event('gateway.stopped', { reason, drained: drained.every(Boolean) })
  }

  async #listen(
    routes: RouteTable,
    parts: {
      readonly namespaces: Namespaces
      readonly observer: Observer
      readonly access: ClientAccess
      readonly writer: ReplyWriter
    },
  ): Promise<void> {
    const { config } = this.#options
    const { namespaces, observer, access, writer } = parts
    const isTrustedProxy = networkMatcher(config.trustedProxies)
    const onDone = observer.request.bind(observer)
    for (const listener of config.listeners) {
      const isDefault = listener.default !== undefined
      const door = access.doorFor(listener)
      const handlers = createHandlers({
        cacheOf: (route, kind) => namespaces.cacheOf(route, kind === 'blob'),
        catalogOf: (request) => this.#catalogOf(request, { namespaces, isDefault, door }),
      })
      const open = await this.#openListener(listener, observer, (port) =>
        listenerFor(
          createRegistryApp({
            listener: { port, defaultUpstream: listener.default },
            routes,
            door,
            handlers,
            writer,
            isTrustedProxy,
            onDone,
          }),
        ),
      )
      this.#registryListeners.push(open)
    }
    this.listeners = this.#registryListeners.map((open, index) => ({
      address: config.listeners[index]?.address.host ?? '',
      port: open.port,
      tls: config.listeners[index]?.tls !== undefined,
    }))
  }

  /** A port of 0 is known only once it is open, and the application needs to know its port. */
  async #openListener(
    listener: ListenerConfig,
    observer: Observer,
    serveAt: (port: number) => ReturnType<typeof listenerFor>,
  ): Promise<Listener> {
    const { address } = listener
    const open = await Listener.open({
      ...address,
      place: this.#listenerPlace(listener),
      tls: listener.tls && readTls(listener.tls),
      serve: (_incoming, outgoing) => outgoing.destroy(),
      onRefused: (refused) => observer.refused(refused),
    })
    this.#allListeners.push(open)
    open.serveWith(serveAt(open.port))
    return open
  }

  async #listenAdmin(metrics: Metrics, desk: OperatorDesk): Promise<void> {
    const { config } = this.#options
    const app = createAdminApp({
      token: config.admin.token?.reveal(),
      notReady: () => (this.#stopping.signal.aborted ? 'draining' : undefined),
      metrics: () => metrics.render(),
      desk,
    })
    const place = this.#options.places.gateway(['admin', 'address'])
    const open = await Listener.open({
      ...config.admin.address,
      place: place === undefined ? 'admin.address' : `${formatPlace(place)} admin.address`,
      takesBodies: true,
      serve: listenerFor(app),
    })
    this.#allListeners.push(open)
    this.admin = { address: config.admin.address.host ?? '', port: open.port }
  }

  #listenerPlace(listener: ListenerConfig): string {
    const { config, places } = this.#options
    const owner = config.upstreams.find(({ routes }) => routes.port === listener.address.port)
    const index = config.listeners.indexOf(listener)
    const place =
      owner === undefined
        ? places.gateway(['listen', index, 'address'])
        : places.upstream(owner.name, ['routes', 'port'])
    const key = owner === undefined ? `listen[${index}].address` : `routes.port of ${owner.name}`
    return place === undefined ? key : `${formatPlace(place)} ${key}`
  }

  #routeEntry({ name, aliases, routes }: UpstreamConfig): RouteEntry {
    const place = this.#options.places.upstream(name, ['name'])
    return { upstream: name, place: place === undefined ? name : formatPlace(place), aliases, ...routes }
  }

  /** What the client may pull of the routed upstream; at an address with a default of the others too, prefixed. */
  #catalogOf(
    { route, mayUse }: Pick<CatalogRequest, 'route' | 'mayUse'>,
    { namespaces, isDefault, door }: { namespaces: Namespaces; isDefault: boolean; door: Door },
  ): readonly CatalogPart[] {
    const part = (name: string, prefix: string): CatalogPart[] => {
      const store = namespaces.storeOf(name)
      if (store === undefined || !mayUse(name)) return []
      return [
        {
          prefix,
          isAllowed: (repository) => door.allows(name, repository),
          list: (page) => store.listRepositories(page),
        },
      ]
    }
    if (route !== undefined && route.via !== 'default') return part(route.upstream, route.stripped ?? '')
    const others = this.#options.config.upstreams.filter(({ name }) => name !== route?.upstream)
    const prefixed =
      isDefault || route === undefined ? others.flatMap(({ name, routes }) => part(name, routes.prefix ?? name)) : []
    return route === undefined ? prefixed : [...part(route.upstream, ''), ...prefixed]
  }

  async #rebuildLedger(namespaces: Namespaces, ledger: Ledger): Promise<void> {
    const { log } = this.#options
    const { signal } = this.#stopping
    for (const { name, store } of await namespaces.list()) {
      try {
        if (signal.aborted || (await ledger.isComplete(name))) continue
        const progress = await rebuildNamespace({
          namespace: name,
          store,
          ledger,
          parse: parseManifest,
          signal,
          report: () => undefined,
        })
        const { repositories, manifests, tags, unreadable } = progress
        if (repositories > 0) log.event('ledger.rebuilt', { upstream: name, repositories, manifests, tags, unreadable })
      } catch (error) {
        if (!signal.aborted) log.event('ledger.failed', { reason: `rebuild of ${name}: ${String(error)}` })
      }
    }
  }
}

function readTls(tls: NonNullable<ListenerConfig['tls']>): TlsOptions {
  const read = ({ cert, key }: { readonly cert: string; readonly key: string }): { cert: string; key: string } => ({
    cert: readFileSync(cert, 'utf8'),
    key: readFileSync(key, 'utf8'),
  })
  return {
    ...read(tls.default),
    named: tls.byHost.map((certificate) => ({ ...read(certificate), hosts: certificate.hosts })),
    clientCa: tls.clientCa === undefined ? undefined : readFileSync(tls.clientCa, 'utf8'),
    // The listener's door asks for the certificate, and tells the client what is wrong with its own.
    admitsUncertified: true,
  }
}

function ownHostsOf({ externalUrl }: Config): { ownHosts: readonly string[] } {
  return { ownHosts: externalUrl === undefined ? [] : [new URL(externalUrl).host] }
}

/** `keep.free` in bytes of the disk that holds the folder. */
async function freeFloorOf({ data, keep }: Config): Promise<number> {
  if ('bytes' in keep.free) return keep.free.bytes
  const { blocks, bsize } = await statfs(data)
  return Math.floor(blocks * bsize * keep.free.share)
}
