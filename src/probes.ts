/** What `entrepot check` looks at: each declared upstream, reached the way the gateway would reach it, without a store. */
import type { Config } from './config/config.ts'
import { readEnvironmentProxy } from './config/environment.ts'
import { openUpstream, type RegistryUpstream } from './upstream/client.ts'
import { upstreamOptionsOf } from './upstream-options.ts'

export interface Probes extends AsyncDisposable {
  readonly upstreams: readonly RegistryUpstream[]
}

/** Opens what can be probed: no patterns, since they name no host, and nothing that is configured offline. Dials nobody. */
export function openProbes(config: Config, { version }: { readonly version: string }): Probes {
  const proxy = readEnvironmentProxy()
  const upstreams = config.upstreams
    .filter(({ isPattern, offline }) => !isPattern && !offline)
    .map((upstream) => openUpstream(upstreamOptionsOf(upstream, { version, proxy, onEvent: () => undefined })))
  return {
    upstreams,
    [Symbol.asyncDispose]: async () => {
      await Promise.allSettled(upstreams.map((upstream) => upstream.close()))
    },
  }
}
