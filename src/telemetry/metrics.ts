/**
 * Metrics for Prometheus. Label values come from the config and from the unions below, never from a request: a
 * repository, digest or host name as label would let strangers grow our memory.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

export type RequestKind = 'manifest' | 'blob' | 'tags' | 'referrers' | 'catalog' | 'ping' | 'other'
/** What the cache did; `none` where it was not asked: a ping, a refusal, an error before it. */
export type RequestOutcome = 'hit' | 'miss' | 'stale' | 'revalidated' | 'joined' | 'negative' | 'bypass' | 'none'
/** `token`: an exchange with a token server. */
export type CallKind = 'manifest' | 'blob' | 'tags' | 'referrers' | 'token' | 'ping'
export type RejectReason = 'digest' | 'length' | 'type' | 'ambiguous' | 'malformed' | 'stored'
export type StaleReason =
  | 'unreachable'
  | 'error'
  | 'throttled'
  | 'invalid'
  | 'denied'
  | 'gone'
  | 'offline'
  | 'slow'
  | 'incomplete'

export type EvictionReason = 'idle' | 'quota' | 'quotaInAll' | 'free' | 'purge' | 'orphan'

export interface RequestCount {
  readonly kind: RequestKind
  readonly outcome: RequestOutcome
  readonly status: number
  readonly seconds: number
}

export interface MetricsOptions {
  /** Metrics of the process and the loop as well. One app of a process should; tests that start many need not. */
  readonly withProcess?: boolean
}

/** From a memory hit to a large cold blob over a slow line. */
const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
/** Pattern upstreams could name many; those beyond share one label. */
const MAX_UPSTREAMS = 500
const OTHER = 'other'

/** One registry per app, so that two gateways in one process do not share counts. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #families: Families
  readonly #upstreams = new Map<string, UpstreamMetrics>()

  constructor({ withProcess = true }: MetricsOptions = {}) {
    this.#families = createFamilies(this.#registry)
    if (withProcess) collectDefaultMetrics({ register: this.#registry })
  }

  /**
   * The counters of one configured upstream, made once and kept. `name` is a config value (a pattern's own text, not
   * the host that matched it); '' stands for requests that reach none.
   */
  upstream(name: string): UpstreamMetrics {
    const label = this.#upstreams.has(name) || this.#upstreams.size < MAX_UPSTREAMS ? name : OTHER
    const held = this.#upstreams.get(label)
    if (held) return held
    const made = new UpstreamMetrics(this.#families, label)
    this.#upstreams.set(label, made)
    return made
  }

  /** A value that is read when somebody looks: bytes free, sizes of caches. `name` starts with `entrepot_`. */
  watch(name: `entrepot_${string}`, help: string, read: () => number): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect: () => gauge.set(read()),
    })
  }

  /** Values of many upstreams that are read when somebody looks. */
  watchUpstreams(name: `entrepot_${string}`, help: string, read: () => Iterable<readonly [string, number]>): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      labelNames: ['upstream'],
      registers: [this.#registry],
      collect: () => {
        gauge.reset()
        for (const [upstream, value] of read()) gauge.inc({ upstream }, value)
      },
    })
  }

  /** What {@link render} is to be sent as. */
  get contentType(): string {
    return this.#registry.contentType
  }

  /** The page for `/metrics`. */
  render(): Promise<string> {
    return this.#registry.metrics()
  }

  /** Forgets every count, so that an app that ended keeps nothing alive. */
  close(): void {
    this.#registry.clear()
    this.#upstreams.clear()
  }
}

/** Counters of one upstream. Every call is one addition on a child that was looked up before. */
export class UpstreamMetrics {
  readonly #families: Families
  readonly #upstream: string
  /** Children by their label values; as many as the unions above allow. */
  readonly #counters = new Map<string, { inc(value?: number): void }>()
  readonly #seconds = new Map<string, { observe(value: number): void }>()
  readonly #fillsActive: { inc(): void; dec(): void }

  constructor(families: Families, upstream: string) {
    this.#families = families
    this.#upstream = upstream
    this.#fillsActive = families.fillsActive.labels(upstream)
    // Present from the start, so that a rate over it is 0 and not absent.
    this.#fillsActive.inc()
    this.#fillsActive.dec()
  }

  requestDone({ kind, outcome, status, seconds }: RequestCount): void {
    this.#counter('requests', kind, outcome, statusLabel(status)).inc()
    const key = `${kind} ${outcome}`
    let child = this.#seconds.get(key)
    if (child === undefined) {
      child = this.#families.requestSeconds.labels(this.#upstream, kind, outcome)
      this.#seconds.set(key, child)
    }
    child.observe(seconds)
  }

  /** Body bytes: sent to clients, or received from the upstream. */
  bytesMoved(direction: 'client' | 'upstream', bytes: number): void {
    if (bytes > 0) this.#counter('bytes', direction).inc(bytes)
  }

  /** One call to the upstream; `result` is the HTTP status, or our error code where there was no answer. */
  upstreamCalled(kind: CallKind, result: number | UpstreamFailure): void {
    this.#counter('upstreamRequests', kind, typeof result === 'number' ? statusLabel(result) : result).inc()
  }

  fillStarted(): void {
    this.#fillsActive.inc()
  }

  fillEnded(): void {
    this.#fillsActive.dec()
  }

  fillResumed(): void {
    this.#counter('fillResumes').inc()
  }

  commitRejected(reason: RejectReason): void {
    this.#counter('commitRejected', reason).inc()
  }

  tokenIssued(): void {
    this.#counter('tokens').inc()
  }

  blobEvicted(reason: EvictionReason, bytes: number): void {
    this.#counter('evictedBytes', reason).inc(bytes)
  }

  imageEvicted(reason: EvictionReason): void {
    this.#counter('evictedImages', reason).inc()
  }

  servedStale(reason: StaleReason): void {
    this.#counter('stale', reason).inc()
  }

  #counter(family: keyof Families['counters'], ...values: string[]): { inc(value?: number): void } {
    const key = `${family} ${values.join(' ')}`
    let child = this.#counters.get(key)
    if (child === undefined) {
      child = this.#families.counters[family].labels(this.#upstream, ...values)
      this.#counters.set(key, child)
    }
    return child
  }
}

/** Why a call had no HTTP answer. */
export type UpstreamFailure = 'unreachable' | 'timeout' | 'aborted' | 'invalid' | 'refused'

type Families = ReturnType<typeof createFamilies>

function createFamilies(registry: Registry) {
  const registers = [registry]
  const counter = (name: string, help: string, ...labelNames: string[]): Counter =>
    new Counter({ name: `entrepot_${name}`, help, labelNames: ['upstream', ...labelNames], registers })
  return {
    counters: {
      requests: counter('requests_total', 'Requests answered, by what the cache did', 'kind', 'outcome', 'status'),
      bytes: counter('bytes_total', 'Body bytes sent to clients and received from upstreams', 'direction'),
      upstreamRequests: counter(
        'upstream_requests_total',
        'Calls to the upstream, by status or failure',
        'kind',
        'code',
      ),
      fillResumes: counter('fill_resumes_total', 'Transfers taken up again after a cut'),
      commitRejected: counter('commit_rejected_total', 'Bodies that were not what they should be', 'reason'),
      tokens: counter('tokens_total', 'Tokens issued to us'),
      evictedBytes: counter('evicted_bytes_total', 'Bytes the disk got back, by why they went', 'reason'),
      evictedImages: counter('evicted_images_total', 'Images that went, by why', 'reason'),
      stale: counter('stale_total', 'Answers given from what we hold because the upstream gave none', 'reason'),
    },
    fillsActive: new Gauge({
      name: 'entrepot_fills_active',
      help: 'Transfers into the store under way',
      labelNames: ['upstream'],
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'entrepot_request_seconds',
      help: 'Time from a request to the last byte of its answer',
      labelNames: ['upstream', 'kind', 'outcome'],
      buckets: SECONDS_BUCKETS,
      registers,
    }),
  }
}

/** Statuses as they are, and one label for what is none. */
function statusLabel(status: number): string {
  return Number.isInteger(status) && status >= 100 && status <= 599 ? String(status) : OTHER
}
