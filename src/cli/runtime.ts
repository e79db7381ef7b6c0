/** What the commands need of the running parts: the only doors from `cli` into the rest, so that tests can stand in. */
import type { Config } from '../config/config.ts'
import type { Gateway, GatewayOptions } from '../gateway.ts'
import type { OperatorDesk } from '../keeping/operator.ts'
import type { Log } from '../telemetry/log.ts'
import type { Upstream } from '../upstream/upstream.ts'
import type { ProbeOptions, ProbeReport } from '../upstream/probe.ts'

export interface ProbedUpstream extends Pick<Upstream, 'name' | 'headManifest'> {
  probe(options: ProbeOptions): Promise<ProbeReport>
}

export interface Probes extends AsyncDisposable {
  /** Clients of the upstreams that can be probed: no patterns, nothing offline. */
  readonly upstreams: readonly ProbedUpstream[]
}

export interface FolderDesk extends OperatorDesk, AsyncDisposable {}

export interface Runtime {
  openLog(config: Config): Log
  startGateway(options: GatewayOptions): Promise<Gateway>
  /** The desk of a folder that no gateway has. Rejects with STORE_UNUSABLE when one has it. */
  openFolderDesk(config: Config): Promise<FolderDesk>
  openProbes(config: Config, options: { readonly version: string }): Probes
}
