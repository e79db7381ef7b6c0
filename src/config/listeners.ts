/** Which sockets are opened: what `listen` says, and the ports that upstreams have for themselves. */
import type { ListenerConfig, ListenerTls, UpstreamConfig } from './config.ts'
import type { GatewayFile } from './gateway-schema.ts'
import type { Address } from './addresses.ts'
import { isLoopback } from './loopback.ts'
import { nearestWord } from './nearest.ts'
import type { KeyPath } from './source.ts'

type DeclaredListener = NonNullable<GatewayFile['listen']>[number]

const DEFAULT_ADDRESS: Address = { host: '127.0.0.1', port: 5000 }
const DEFAULT_UPSTREAM = 'docker.io'

/** The listeners of `listen`, or the default one; then one for each upstream's port on each host they name. */
export function planListeners(
  declared: readonly DeclaredListener[] | undefined,
  upstreams: readonly UpstreamConfig[],
): ListenerConfig[] {
  const listeners = declared?.map(resolveListener) ?? [defaultListener(upstreams)]
  const opened = [...listeners]
  for (const { routes } of upstreams) {
    const { port } = routes
    if (port === undefined || listeners.some(({ address }) => address.port === port)) continue
    for (const { address, tls } of listeners) {
      if (opened.some((other) => other.address.port === port && other.address.host === address.host)) continue
      opened.push({ address: { host: address.host, port }, default: undefined, tls })
    }
  }
  return opened
}

function defaultListener(upstreams: readonly UpstreamConfig[]): ListenerConfig {
  const hasHub = upstreams.some(({ name }) => name === DEFAULT_UPSTREAM)
  return { address: DEFAULT_ADDRESS, default: hasHub ? DEFAULT_UPSTREAM : undefined, tls: undefined }
}

function resolveListener({ address, default: upstream, tls }: DeclaredListener): ListenerConfig {
  return { address, default: upstream, tls: tls && resolveTls(tls) }
}

function resolveTls(certificates: NonNullable<DeclaredListener['tls']>): ListenerTls | undefined {
  const main = certificates.find(({ hosts }) => hosts === undefined) ?? certificates[0]
  if (main === undefined) return undefined
  return {
    default: { cert: main.cert, key: main.key },
    byHost: certificates.flatMap(({ hosts, cert, key }) =>
      hosts === undefined ? [] : [{ hosts: hosts.map((host) => host.toLowerCase()), cert, key }],
    ),
    clientCa: certificates.find(({ clientCa }) => clientCa !== undefined)?.clientCa,
  }
}

/** What is wrong with the listeners, by the key it is wrong with. `names` are those of all upstreams, also broken ones. */
export function checkListeners(
  { listen = [], admin }: Pick<GatewayFile, 'listen' | 'admin'>,
  upstreams: readonly UpstreamConfig[],
  names: readonly string[],
): { readonly path: KeyPath; readonly message: string }[] {
  const found: { path: KeyPath; message: string }[] = []
  const report = (path: KeyPath, message: string): number => found.push({ path, message })
  for (const [index, listener] of listen.entries()) {
    const { address, default: name, tls = [] } = listener
    const earlier = listen.slice(0, index).findIndex((other) => collides(other.address, address))
    if (earlier >= 0) report(['listen', index, 'address'], `takes the same port as listen[${earlier}]: choose another`)
    if (name !== undefined && !names.includes(name)) {
      const nearest = nearestWord(name, names)
      report(
        ['listen', index, 'default'],
        `no upstream is called ${name}; ${nearest === undefined ? `there are ${names.join(', ')}` : `did you mean ${nearest}?`}`,
      )
    } else if (name?.includes('*'))
      report(['listen', index, 'default'], `${name} is a pattern, which names no single registry`)
    const owner = upstreams.find(({ routes }) => routes.port === address.port)
    if (owner !== undefined && name !== undefined && owner.name !== name) {
      report(
        ['listen', index, 'default'],
        `port ${address.port} belongs to upstream ${owner.name} by its routes.port, so it cannot default to ${name}: change one of the two`,
      )
    }
    const general = tls.flatMap(({ hosts }, at) => (hosts === undefined ? [at] : []))
    for (const at of general.slice(1))
      report(['listen', index, 'tls', at], 'is a second certificate without hosts: name the hosts it is for')
    if (tls.length > 0 && new Set(tls.map(({ clientCa }) => clientCa).filter((ca) => ca !== undefined)).size > 1) {
      report(['listen', index, 'tls'], 'names several clientCa: one listener has one')
    }
  }
  if (admin.token === undefined && !isLoopback(admin.address.host ?? '')) {
    report(['admin', 'address'], 'is reachable from other machines: set admin.token, or listen on 127.0.0.1')
  }
  const taken = planListeners(listen.length === 0 ? undefined : listen, upstreams).find(({ address }) =>
    collides(address, admin.address),
  )
  if (taken !== undefined)
    report(['admin', 'address'], `port ${admin.address.port} is taken by a listener for clients: choose another`)
  return found
}

function collides(a: Address, b: Address): boolean {
  return a.port !== 0 && a.port === b.port && (a.host === b.host || a.host === undefined || b.host === undefined)
}
