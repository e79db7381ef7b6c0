/** What the commands need of the running parts: the only doors from `cli` into the rest, so that tests can stand in. */
import type { Config, ConfigPlaces } from '../config/config.ts'
import type { Log } from '../telemetry/log.ts'
import type { Upstream } from '../upstream/upstream.ts'
import type { ProbeOptions, ProbeReport } from '../upstream/probe.ts'

export interface BoundListener {
  /** Empty: all interfaces. */
  readonly address: string
  /** The port it got, where the configuration said 0. */
  readonly port: number
  readonly tls: boolean
}

export interface RunningGateway {
  /** In the order of `Config.listeners`. */
  readonly listeners: readonly BoundListener[]
  readonly admin: { readonly address: string; readonly port: number }
  /** Drains and ends. `reason` is a signal's name, or `failure`: then there is no time to drain. Idempotent. */
  close(reason: string): Promise<void>
}

export interface StartOptions {
  readonly config: Config
  readonly places: ConfigPlaces
  readonly log: Log
  readonly version: string
}

export interface ProbedUpstream extends Pick<Upstream, 'name' | 'headManifest'> {
  probe(options: ProbeOptions): Promise<ProbeReport>
}

export interface Probes extends AsyncDisposable {
  /** Clients of the upstreams that can be probed: no patterns, nothing offline. */
  readonly upstreams: readonly ProbedUpstream[]
}

export interface Runtime {
  openLog(config: Config): Log
  startGateway(options: StartOptions): Promise<RunningGateway>
  openProbes(config: Config, options: { readonly version: string }): Probes
}
