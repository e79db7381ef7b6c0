/** The configuration as the rest of the program gets it: checked, absolute paths, milliseconds, bytes, defaults filled in. */
import type { GatewayFile } from './gateway-schema.ts'
import type { Address } from './addresses.ts'
import type { KeyPath, Place } from './source.ts'
import type { UpstreamFile } from './upstream-schema.ts'

export interface Config extends Omit<GatewayFile, 'listen' | 'ledger' | 'upstreams'> {
  /** Every listener for clients: those of `listen`, then one for each upstream's own port that `listen` does not name. */
  readonly listeners: readonly ListenerConfig[]
  readonly ledger: string
  /** The folder the upstreams came from. */
  readonly upstreamsFolder: string
  /** In the order of their file names. At least one. */
  readonly upstreams: readonly UpstreamConfig[]
}

export interface ListenerConfig {
  readonly address: Address
  /** Name of the upstream of a request that names none. An upstream whose `routes.port` is this port comes before it. */
  readonly default: string | undefined
  readonly tls: ListenerTls | undefined
}

/** PEM files. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
}

export interface ListenerTls {
  /** For every host that no other certificate names. */
  readonly default: CertificateFiles
  readonly byHost: readonly (CertificateFiles & { readonly hosts: readonly string[] })[]
  /** When set, clients without a certificate of this authority must be refused, under every host name. */
  readonly clientCa: string | undefined
}

export interface UpstreamConfig extends Omit<UpstreamFile, 'name' | 'routes'> {
  readonly name: string
  /** Whether `name` holds `*`: then it stands for any number of hosts. */
  readonly isPattern: boolean
  readonly routes: {
    /** Lower case. */
    readonly hosts: readonly string[]
    readonly port: number | undefined
    /** A prefix beside the name, or the name itself; undefined where that holds a port, which no image name can carry. */
    readonly prefix: string | undefined
  }
}

/** Tells where a key stands, for checks that come after loading. */
export interface ConfigPlaces {
  /** A key of entrepot.yaml; undefined when there is no such file. */
  gateway(path: KeyPath): Place | undefined
  /** A key of the named upstream's file, or the nearest one above it that is written; undefined for an unknown name. */
  upstream(name: string, path: KeyPath): Place | undefined
}
