/** What `serve` says when it is up: where it listens, what it serves under which names, and a line to try. Pure. */
import type { Config, UpstreamConfig } from '../config/config.ts'
import type { BoundAddress, Gateway } from '../gateway.ts'
import { formatTable } from './table.ts'
import { KNOWN_IMAGES } from './known-images.ts'
import type { Output } from './terminal.ts'

export interface BannerOptions {
  readonly config: Config
  readonly gateway: Gateway
  readonly version: string
  readonly out: Output
}

const UNKNOWN_EXAMPLE = 'ORG/IMAGE:TAG'
const INDENT = '  '

/** The whole banner, ending in a line end. */
export function formatBanner(options: BannerOptions): string {
  const { version, out } = options
  const title = `${out.paint('bold', 'entrepot')} ${version}`
  const sections = [title, formatAddresses(options), formatUpstreams(options), formatExamples(options)]
  return `\n${sections.filter((section) => section !== '').join('\n\n')}\n\n`
}

/** Where it can be reached for everything, and where it keeps things. */
function formatAddresses({ config, gateway, out }: BannerOptions): string {
  const rows = gateway.listeners.flatMap((listener, index) => {
    if (config.upstreams.some(({ routes }) => routes.port === listener.port)) return []
    const fallback = config.listeners[index]?.default
    return [
      [
        'pull',
        formatUrl(listener),
        `every upstream, by its name in the path or in ns=${fallback === undefined ? '' : `; else ${fallback}`}`,
      ],
    ]
  })
  const { admin } = gateway
  rows.push(['admin', formatUrl({ ...admin, tls: false }), '/livez /readyz /metrics'])
  rows.push(['data', config.data, ''], ['upstreams', `${config.upstreamsFolder}/*.yaml`, ''])
  // The first two columns hold addresses and paths: cut, they would be of no use.
  const width = Math.max(...rows.filter(([, , what]) => what !== '').map(([, address = '']) => address.length))
  return rows
    .map(
      ([label = '', address = '', what = '']) =>
        `${INDENT}${out.paint('dim', label.padEnd(9))}  ${what === '' ? address : `${address.padEnd(width)}  ${what}`}`,
    )
    .join('\n')
}

function formatUpstreams({ config, gateway, out }: BannerOptions): string {
  const table = config.upstreams.map((upstream) => ({
    UPSTREAM: upstream.name,
    'ALONE AT': ownAddresses(upstream, gateway).join(' '),
    'ALSO CALLED': [...new Set([upstream.routes.prefix ?? '', ...upstream.aliases])]
      .filter((word) => word !== upstream.name)
      .join(' ')
      .trim(),
    ACCESS: describeAccess(upstream),
  }))
  const header = (['UPSTREAM', 'ALONE AT', 'ACCESS', 'ALSO CALLED'] as const).filter((column) =>
    table.some((row) => row[column] !== ''),
  )
  const rows = table.map((row) => header.map((column) => row[column] || '-'))
  const paint = (padded: string, { row }: { readonly row: number }): string =>
    row === -1 ? out.paint('dim', padded) : padded
  return formatTable(header, rows, { width: out.width, indent: INDENT, paint })
}

/** Addresses at which every request is for this upstream. */
function ownAddresses({ routes }: UpstreamConfig, gateway: Gateway): string[] {
  const urls = gateway.listeners.filter(({ port }) => port === routes.port).map(formatUrl)
  return [...urls, ...routes.hosts]
}

/** What the gateway is upstream, and who of the clients may use that. */
function describeAccess({ access, auth, network, offline, clients }: UpstreamConfig): string {
  const identity = auth === undefined && network.cert === undefined ? 'anonymous' : 'credentials'
  const whose = offline ? 'offline' : identity
  if (clients !== undefined) return `${whose}, for some clients`
  return whose === 'credentials' && access === 'shared' ? 'credentials, shared with all clients' : whose
}

function formatExamples({ config, gateway, out }: BannerOptions): string {
  const [main] = gateway.listeners
  if (main === undefined) return ''
  const at = `${clientHost(main.address)}:${main.port}`
  const fallback = config.listeners[0]?.default
  const lines = fallback === undefined ? [] : [`docker pull ${at}/${imageOf(fallback)}`]
  const others = config.upstreams.filter(
    ({ name, isPattern }) => name !== fallback && !isPattern && !name.includes(':'),
  )
  const shown = [...KNOWN_IMAGES.keys()].find((known) => others.some(({ name }) => name === known)) ?? others[0]?.name
  if (shown !== undefined) lines.push(`docker pull ${at}/${shown}/${imageOf(shown)}`)
  if (lines.length === 0) return ''
  return [`${INDENT}Pull through it:`, '', ...lines.map((line) => `${INDENT}${INDENT}${out.paint('cyan', line)}`)].join(
    '\n',
  )
}

function imageOf(upstream: string): string {
  return KNOWN_IMAGES.get(upstream)?.replace(/:latest$/, '') ?? UNKNOWN_EXAMPLE
}

function formatUrl({ address, port, tls }: BoundAddress): string {
  return `${tls ? 'https' : 'http'}://${formatHost(address)}:${port}`
}

function formatHost(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}

/** What a client on this machine types; Docker takes plain HTTP from `localhost` without being told. */
function clientHost(address: string): string {
  return ['127.0.0.1', '::1', '::', '0.0.0.0', ''].includes(address) ? 'localhost' : formatHost(address)
}
