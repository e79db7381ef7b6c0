/** An upstream as its file declares it, with the place of every key: what the checks across files work on. */
import type { UpstreamConfig } from './config.ts'
import type { Source } from './source.ts'
import type { UpstreamFile } from './upstream-schema.ts'

export interface DeclaredUpstream {
  readonly upstream: UpstreamConfig
  readonly source: Source
}

// Names under which clients know Docker Hub; whoever declares it wants all of them (wire.md 1.1).
const HUB = 'docker.io'
const HUB_ALIASES: readonly string[] = ['registry-1.docker.io', 'index.docker.io', 'registry.hub.docker.com']

/** Fills in what follows from the name. `fileName` is the file's name without its extension. */
export function declareUpstream(file: UpstreamFile, fileName: string): UpstreamConfig {
  const name = file.name ?? fileName
  const aliases = [...file.aliases, ...(name === HUB ? HUB_ALIASES : [])].map((alias) => normalizeNs(alias))
  return {
    ...file,
    name,
    isPattern: name.includes('*'),
    aliases: [...new Set(aliases)],
    routes: {
      hosts: file.routes.hosts.map((host) => host.toLowerCase()),
      port: file.routes.port,
      prefix: file.routes.prefix ?? (name.includes(':') ? undefined : name),
    },
  }
}

/** How `ns` values are compared: lower case, the default port left out (wire.md 1.1). */
export function normalizeNs(ns: string): string {
  return ns.toLowerCase().replace(/:443$/, '')
}
