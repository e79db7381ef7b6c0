// Everything a run starts: the upstream, the light client, the peers. Each lives in a folder of its own below one that
// goes with the lab.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChildProgram } from './child.ts'
import type { Image, ImagePlan } from './image.ts'
import type { Address } from './light-connection.ts'
import { type PeerName, planPeer } from './peers.ts'
import type { PullerJob, PullerReport } from './puller.ts'
import { readUsage, resetPeak, startServerProcess, type Usage } from './server-process.ts'
import type { Counts, Pace, UpstreamQuestion, UpstreamReply } from './upstream.ts'

/** A server that answers; dispose stops it and removes its folder. `direct` is the upstream itself and stays. */
export interface Peer extends AsyncDisposable {
  readonly address: Address
  readonly startMs: number
  /** What its folder holds goes with it. */
  readonly folder: string
  readonly usage: () => Usage
  readonly resetPeak: () => void
}

const MB = 1_000_000
/** Shares no blob with what is measured; one layer is large enough for transfers over several connections. */
const WARM_UP: ImagePlan = { repository: 'bench/warm-up', tag: 'v1', layers: [40 * MB, MB, MB], seed: 'warm-up' }
/** A storm through a peer that fetches once per client takes a minute; whoever needs this long is stuck. */
const JOB_TIMEOUT_MS = 300_000

/** The upstream's controls. */
export class Upstream {
  readonly #program: ChildProgram<UpstreamQuestion, UpstreamReply>
  readonly address: Address
  #warmUp: Image | undefined

  constructor(program: ChildProgram<UpstreamQuestion, UpstreamReply>, port: number) {
    this.#program = program
    this.address = { host: '127.0.0.1', port }
  }

  get pid(): number {
    return this.#program.pid
  }

  get url(): string {
    return `http://${this.address.host}:${this.address.port}`
  }

  /** Makes `plan` the image held, beside the small one that peers warm up with. */
  async load(plan: ImagePlan): Promise<Image> {
    const [image, warmUp] = (await this.#program.ask({ kind: 'load', plans: [plan, WARM_UP] })).images
    if (image === undefined || warmUp === undefined) throw new Error('the upstream generated no image')
    this.#warmUp = warmUp
    return image
  }

  /** The small image; only after {@link load}. */
  get warmUp(): Image {
    if (this.#warmUp === undefined) throw new Error('the upstream holds no image yet')
    return this.#warmUp
  }

  /** Holds for requests that arrive from now on. */
  async pace(pace: Pace): Promise<void> {
    await this.#program.ask({ kind: 'pace', pace })
  }

  /** What it was asked and what it sent since the last call. */
  async takeCounts(): Promise<Counts> {
    return (await this.#program.ask({ kind: 'counts' })).counts
  }
}

export class Lab implements AsyncDisposable {
  readonly upstream: Upstream
  readonly #folder: string
  readonly #puller: ChildProgram<PullerJob, PullerReport>
  readonly signal: AbortSignal
  readonly #owned: AsyncDisposableStack

  private constructor(
    folder: string,
    upstream: Upstream,
    puller: ChildProgram<PullerJob, PullerReport>,
    owned: AsyncDisposableStack,
    signal: AbortSignal,
  ) {
    this.#folder = folder
    this.upstream = upstream
    this.#puller = puller
    this.#owned = owned
    this.signal = signal
  }

  /** Starts upstream and client. An abort of `signal` ends the next wait, and with it the run. */
  static async open(signal: AbortSignal): Promise<Lab> {
    await using owned = new AsyncDisposableStack()
    const folder = await mkdtemp(join(tmpdir(), 'entrepot-bench-'))
    owned.defer(() => rm(folder, { recursive: true, force: true }))
    const registry = owned.use(new ChildProgram<UpstreamQuestion, UpstreamReply>('./upstream.ts'))
    const puller = owned.use(new ChildProgram<PullerJob, PullerReport>('./puller.ts'))
    const { port } = await registry.ask({ kind: 'listen' })
    return new Lab(folder, new Upstream(registry, port), puller, owned.move(), signal)
  }

  /** Runs a job of the light client. Rejects when any of its clients failed: a figure of half a job is none. */
  async pull(job: PullerJob): Promise<PullerReport> {
    this.signal.throwIfAborted()
    const report = await this.#puller.ask(job, JOB_TIMEOUT_MS)
    if (report.failed > 0) throw new Error(`${report.failed} clients failed: ${report.failures.join('; ')}`)
    return report
  }

  /** A peer with an empty cache. */
  async startPeer(name: PeerName): Promise<Peer> {
    if (name === 'direct') return this.#direct()
    this.signal.throwIfAborted()
    await using owned = new AsyncDisposableStack()
    const folder = await mkdtemp(join(this.#folder, 'peer-'))
    owned.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))
    const { address, command } = await planPeer(name, folder, this.upstream.url)
    const server = owned.use(await startServerProcess(command, this.signal))
    const kept = owned.move()
    return {
      address,
      startMs: server.startMs,
      folder,
      usage: server.usage,
      resetPeak: server.resetPeak,
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    }
  }

  #direct(): Peer {
    const { pid, address } = this.upstream
    return {
      address,
      startMs: 0,
      folder: this.#folder,
      usage: () => readUsage(pid),
      resetPeak: () => resetPeak(pid),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync()
  }
}
