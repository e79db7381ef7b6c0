/**
 * Host names as they come from outside: `Host`, SNI, `ns`. Checked once here, before anything builds a URL from them: a
 * Host with `/`, `?` or `@` in it has shifted paths in other servers. Pure.
 */

/** A checked `host[:port]`. */
export interface Authority {
  /** Lower case, without a trailing dot; an IPv6 address keeps its brackets. */
  readonly name: string
  readonly port: number | undefined
}

const NAME = /^(?:[a-z0-9-]+\.)*[a-z0-9-]+\.?$/i
const IPV6 = /^\[[0-9a-f:.]{2,45}\]$/i
const AUTHORITY = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/
const MAX_LENGTH = 255 + 6

/** Parses `host[:port]`; undefined for anything else, such as a scheme, a path, a user or a second colon. */
export function parseAuthority(text: string): Authority | undefined {
  if (text.length > MAX_LENGTH) return undefined
  const match = AUTHORITY.exec(text)
  const name = match?.[1]
  if (name === undefined || !(NAME.test(name) || IPV6.test(name))) return undefined
  const port = match?.[2] === undefined ? undefined : Number(match[2])
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined
  return { name: name.toLowerCase().replace(/\.$/, ''), port }
}

/** One spelling per authority, to compare by: `:443` is what a registry name means without a port. */
export function authorityKey({ name, port }: Authority): string {
  return port === undefined || port === 443 ? name : `${name}:${port}`
}

/** A request target taken apart; nothing in it is decoded. */
export interface RequestTarget {
  readonly host: string
  readonly path: string
  /** Without `?`. */
  readonly query: string
}

// Visible ASCII but the backslash, which some URL parsers read as a slash.
const TARGET = /^[\x21-\x5b\x5d-\x7e]+$/
const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/i

/**
 * Takes the request line's target and the Host headers apart. Undefined when there is not exactly one valid Host, or when
 * an absolute-form target names another authority: two readers of such a request would see two different hosts.
 * Rule: RFC 9112 section 3.2.
 */
export function parseTarget(target: string, hosts: readonly string[]): RequestTarget | undefined {
  const [host, ...more] = hosts
  if (host === undefined || more.length > 0) return undefined
  const named = parseAuthority(host)
  if (named === undefined || !TARGET.test(target) || target.includes('#')) return undefined
  const absolute = ABSOLUTE.exec(target)
  if (absolute !== null) {
    const other = parseAuthority(absolute[1] ?? '')
    if (other === undefined || other.name !== named.name || other.port !== named.port) return undefined
  }
  const rest = absolute === null ? target : (absolute[2] ?? '')
  const mark = rest.indexOf('?')
  const path = mark === -1 ? rest : rest.slice(0, mark)
  if (path !== '' && !path.startsWith('/')) return undefined
  return { host, path: path === '' ? '/' : path, query: mark === -1 ? '' : rest.slice(mark + 1) }
}
