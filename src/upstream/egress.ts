/** Which egress proxy a call goes through, if any. Pure: the environment is read by `config`. */
import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** As the environment has them; an explicit proxy of one upstream is given as both. */
export interface ProxyOptions {
  readonly httpProxy?: string
  readonly httpsProxy?: string
  /** Comma or space separated: names, `.suffixes`, `*.suffixes`, addresses, CIDRs, each with an optional port; `*` is all. */
  readonly noProxy?: string
}

/** The proxy for `url`, or undefined for a direct connection. A name is never resolved for this. */
export function proxyFor(url: URL, options: ProxyOptions): string | undefined {
  const proxy = url.protocol === 'https:' ? options.httpsProxy : options.httpProxy
  if (proxy === undefined || proxy === '') return undefined
  const entries = (options.noProxy ?? '').split(/[\s,]+/).filter((entry) => entry !== '')
  return entries.some((entry) => matchesEntry(url, entry.toLowerCase())) ? undefined : withScheme(proxy)
}

function withScheme(proxy: string): string {
  return proxy.includes('://') ? proxy : `http://${proxy}`
}

function matchesEntry(url: URL, entry: string): boolean {
  if (entry === '*') return true
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  if (ipaddr.isValidCIDR(entry)) return isIP(host) !== 0 && isInNetwork(host, entry)
  const [, name, port] = /^(.*?)(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry) ?? []
  if (name === undefined || (port !== undefined && port !== effectivePort(url))) return false
  const bare = name.replace(/^\[|\]$/g, '')
  if (isIP(bare) !== 0 && isIP(host) !== 0) return ipaddr.process(bare).toString() === ipaddr.process(host).toString()
  // As curl and Go have it: `example.com` covers the name and all below it, `.example.com` and `*.example.com` only those.
  const suffix = bare.replace(/^\*?\./, '')
  return suffix !== '' && ((suffix === bare && host === suffix) || host.endsWith(`.${suffix}`))
}

function isInNetwork(host: string, network: string): boolean {
  const address = ipaddr.process(host)
  const [base, bits] = ipaddr.parseCIDR(network)
  if (address instanceof ipaddr.IPv4) return base instanceof ipaddr.IPv4 && address.match(base, bits)
  return base instanceof ipaddr.IPv6 && address.match(base, bits)
}

function effectivePort(url: URL): string {
  return url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port
}
