/** What the commands need of the running parts: the only doors from `cli` into the rest, so that tests can stand in. */
import type { Config, ConfigPlaces } from '../config/config.ts'

/** The log as commands use it: an event's name and its fields. */
export interface CommandLog {
  info(event: string, fields?: Readonly<Record<string, unknown>>): void
  error(event: string, fields?: Readonly<Record<string, unknown>>): void
}

export interface BoundListener {
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

/** One step of reaching an upstream. */
export interface ProbeStep {
  readonly step: string
  readonly ok: boolean
  /** What was found, or what was tried, on what, and what came back. No credential, no query string. */
  readonly detail: string
  readonly ms: number
}

export interface ProbedUpstream {
  readonly name: string
  /** DNS, TLS, auth and one HEAD, in this order; ends at the first that fails. Never rejects but for `signal`. */
  probe(options: { readonly signal: AbortSignal }): Promise<readonly ProbeStep[]>
}

export interface Probes extends AsyncDisposable {
  /** Those that can be probed: no patterns, nothing offline. */
  readonly upstreams: readonly ProbedUpstream[]
}

export interface Runtime<L extends CommandLog = CommandLog> {
  openLog(options: Config['log']): L
  startGateway(options: {
    readonly config: Config
    readonly places: ConfigPlaces
    readonly log: L
    readonly version: string
  }): Promise<RunningGateway>
  openProbes(config: Config, options: { readonly version: string }): Promise<Probes>
}
