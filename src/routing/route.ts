/**
 * Which upstream a request is for: a closed world. Every selector is a key into the table, never an address to dial;
 * what nobody declared is 404, so that a client goes on to its next host. Pure. Facts: wire.md 1.1.
 */
import { authorityKey, parseAuthority, type Authority } from './authority.ts'
import { DOCKER_HUB, type PrefixMatch, type RouteTable, type RouteTarget } from './table.ts'

/** The listener a request came in by. */
export interface ListenerKey {
  readonly port: number
  /** The upstream of requests that name none. */
  readonly defaultUpstream: string | undefined
}

export interface RouteRequest {
  readonly listener: ListenerKey
  /** The Host header as it came. */
  readonly host: string | undefined
  /** SNI of a TLS connection. */
  readonly serverName?: string | undefined
  /** Every value of `ns` in the query, not decoded. */
  readonly ns: readonly string[]
  /** Request header `OCI-Namespace`, for clients that can set a header but no query. */
  readonly ociNamespace?: string | undefined
  /** Path as it came, without query. */
  readonly rawPath: string
}

/** By what the upstream was found. */
export type Via = 'outer' | 'ns' | 'port' | 'host' | 'inner' | 'default'

export interface Route {
  readonly kind: 'route'
  /** Name of the upstream, which is its namespace too. */
  readonly upstream: string
  /** The pattern entry that covers it; undefined when it is declared by its own name. */
  readonly pattern: string | undefined
  readonly via: Via
  /** What follows `/v2/` for the upstream, raw: `library/alpine/manifests/3`; empty for a ping. */
  readonly rest: string
  /** Prefix before `/v2` as requested. */
  readonly outer: string | undefined
  /** Prefix taken from the repository as requested; names in answers carry it. */
  readonly stripped: string | undefined
  /** The repository as the client wrote it, for answers that echo it; undefined for ping and catalog. */
  readonly requestedName: string | undefined
  /** What to answer in `OCI-Namespace`. */
  readonly ociNamespace: string | undefined
}

/** `/v2/` or `_catalog` at an address that names no upstream and has no default: there is still an answer to give. */
export interface Unrouted {
  readonly kind: 'unrouted'
  readonly rest: '' | '_catalog'
}

export interface RouteProblem {
  readonly kind: 'problem'
  readonly code: 'ROUTE_UNKNOWN' | 'ROUTE_CONFLICT' | 'BAD_REQUEST'
  /** Safe to show to the client. */
  readonly message: string
}

interface Selection {
  readonly target: RouteTarget
  readonly via: Via
}

/** What `ns` or its header says: `undefined` where it selects nothing. */
interface NamespaceSelection {
  readonly target: RouteTarget
  readonly text: string
}

/**
 * Finds the upstream: outer prefix, `ns`, port, host, inner prefix, default, in this order. A prefix in the repository
 * that names the upstream found already is taken off once. Never throws.
 */
export function route(table: RouteTable, request: RouteRequest): Route | Unrouted | RouteProblem {
  const host = parseAuthority(request.host ?? '')
  if (host === undefined) return problem('BAD_REQUEST', 'the Host header is missing or malformed')
  const asked = splitPath(table, request.rawPath, host)
  if (asked === undefined) {
    const [first = ''] = request.rawPath.slice(1).split('/')
    return unknown(first, 'a path starts with /v2/, or with the name of an upstream before it')
  }
  const ns = namespaceOf(table, request, host, asked.outer !== undefined)
  if (ns !== undefined && 'kind' in ns) return ns
  if (asked.outer !== undefined && ns !== undefined && asked.outer.target.upstream !== ns.target.upstream) {
    return conflict(`the path names ${asked.outer.target.upstream}`, `ns names ${ns.target.upstream}`)
  }
  const selected = select(table, request, { host, outer: asked.outer, ns })
  if (selected !== undefined && 'kind' in selected) return selected
  return settle(table, request.listener, { ...asked, host, selected, ociNamespace: ns?.text })
}

/** Every raw value of `ns` in a query string; the key may itself be percent-encoded. */
export function nsValues(query: string): string[] {
  if (query === '') return []
  return query.split('&').flatMap((pair) => {
    const equals = pair.indexOf('=')
    const key = equals === -1 ? pair : pair.slice(0, equals)
    return decodeOnce(key) === 'ns' ? [equals === -1 ? '' : pair.slice(equals + 1)] : []
  })
}

interface AskedPath {
  readonly outer: PrefixMatch | undefined
  readonly outerText: string | undefined
  /** What follows `/v2/`. */
  readonly segments: readonly string[]
}

/** Takes `/v2` or `<prefix>/v2` off; K3s sends `<prefix>` alone. Undefined when the path is none of ours. */
function splitPath(table: RouteTable, rawPath: string, host: Authority): AskedPath | undefined {
  const segments = rawPath.slice(1).split('/')
  if (segments[0] === 'v2') return { outer: undefined, outerText: undefined, segments: segments.slice(1) }
  const outer = prefixOf(table, segments, host)
  if (outer === undefined) return undefined
  const after = segments.slice(outer.length)
  const outerText = segments.slice(0, outer.length).join('/')
  return { outer, outerText, segments: after[0] === 'v2' && !isEndpointOnly(after) ? after.slice(1) : after }
}

/** A prefix, unless it is our own name: a wide pattern would send us to ourselves. */
function prefixOf(table: RouteTable, segments: readonly string[], host: Authority): PrefixMatch | undefined {
  const match = table.byPrefix(segments)
  return match?.target.pattern !== undefined && match.target.upstream === host.name ? undefined : match
}

function namespaceOf(
  table: RouteTable,
  request: RouteRequest,
  host: Authority,
  hasOuter: boolean,
): NamespaceSelection | RouteProblem | undefined {
  if (request.ns.length > 1) return problem('ROUTE_CONFLICT', 'ns is given more than once')
  // The header is weaker than every selector in the URL that names an upstream by itself.
  const raw = request.ns[0] ?? (hasOuter ? undefined : request.ociNamespace)
  if (raw === undefined) return undefined
  const text = request.ns.length === 0 ? raw.trim() : decodeOnce(raw)
  if (text === undefined || text === '') return problem('BAD_REQUEST', 'ns is empty or not properly encoded')
  const authority = parseAuthority(text)
  if (authority === undefined) return unknown(text, 'ns is host[:port] of a declared upstream')
  const declared = table.byName(authority)
  if (declared !== undefined) return { target: declared, text }
  if (authorityKey(authority) === authorityKey(host)) return undefined
  if (authority.name === host.name || table.isOwn(authority))
    return ownAddress(table, request.listener, authority, text)
  const target = table.byPattern(authorityKey(authority))
  return target === undefined ? unknown(text, 'ns is not a declared upstream') : { target, text }
}

/** `ns` names this gateway. Another address of ours keeps its meaning, or a name would change its upstream on the way. */
function ownAddress(
  table: RouteTable,
  listener: ListenerKey,
  { name, port }: Authority,
  text: string,
): NamespaceSelection | RouteProblem | undefined {
  const target = (port === undefined ? undefined : table.byPort(port)) ?? table.byHost({ name, port })
  if (target !== undefined) return { target, text }
  const isHere = port === undefined || port === 443 || port === listener.port || table.isOwn({ name, port })
  return isHere ? undefined : unknown(text, 'no route is declared for that port of this gateway')
}

interface Selectors {
  readonly host: Authority
  readonly outer: PrefixMatch | undefined
  readonly ns: NamespaceSelection | undefined
}

function select(
  table: RouteTable,
  request: RouteRequest,
  { host, outer, ns }: Selectors,
): Selection | RouteProblem | undefined {
  if (outer !== undefined) return { target: outer.target, via: 'outer' }
  if (ns !== undefined) return { target: ns.target, via: 'ns' }
  const byPort = table.byPort(request.listener.port)
  if (byPort !== undefined) return { target: byPort, via: 'port' }
  const sni = request.serverName === undefined ? undefined : parseAuthority(request.serverName)
  const bySni = sni === undefined ? undefined : table.byHost(sni)
  const byHost = table.byHost(host)
  // The certificate checked by the client was for one name and the request is for another (RFC 9110 section 7.4).
  if (bySni !== undefined && byHost !== undefined && bySni.upstream !== byHost.upstream) {
    return conflict(`the TLS name stands for ${bySni.upstream}`, `Host for ${byHost.upstream}`)
  }
  const target = byHost ?? bySni
  return target === undefined ? undefined : { target, via: 'host' }
}

interface Settling extends AskedPath {
  readonly host: Authority
  readonly selected: Selection | undefined
  readonly ociNamespace: string | undefined
}

/** Decides between what was selected, the inner prefix and the listener's default, and takes the prefix off. */
function settle(table: RouteTable, listener: ListenerKey, asked: Settling): Route | Unrouted | RouteProblem {
  const { segments, selected } = asked
  const inner = innerPrefix(table, segments, asked.host)
  const [first = ''] = segments
  if (selected !== undefined) {
    if (inner?.target.upstream === selected.target.upstream) return finish(selected, asked, inner.length)
    const explicit = selected.via === 'outer' || selected.via === 'ns'
    if (inner !== undefined && explicit) {
      return conflict(
        `the repository starts with ${inner.target.upstream}`,
        `${selected.via} names ${selected.target.upstream}`,
      )
    }
    // Docker Hub has no namespace with a dot: the client was set up as a mirror of Hub and asks for something else.
    if (selected.target.upstream === DOCKER_HUB && looksLikeDomain(first)) return foreignDomain(first)
    return finish(selected, asked, 0)
  }
  if (inner !== undefined) return finish({ target: inner.target, via: 'inner' }, asked, inner.length)
  if (looksLikeDomain(first)) return foreignDomain(first)
  const name = listener.defaultUpstream
  if (name !== undefined && table.has(name)) {
    return finish({ target: { upstream: name, pattern: undefined }, via: 'default' }, asked, 0)
  }
  const rest = segments.join('/')
  if (rest === '' || rest === '_catalog') return { kind: 'unrouted', rest }
  return unknown(first, 'this address has no default upstream: put the name of one before the repository')
}

function innerPrefix(table: RouteTable, segments: readonly string[], host: Authority): PrefixMatch | undefined {
  const match = prefixOf(table, segments, host)
  // `/v2/hub/manifests/1` asks for a repository called hub, not for one without a name below the prefix hub.
  return match === undefined || isEndpointOnly(segments.slice(match.length - 1)) ? undefined : match
}

function finish({ target, via }: Selection, asked: Settling, prefixLength: number): Route {
  const { segments } = asked
  let own = segments.slice(prefixLength)
  // `/v2/<prefix>/v2/<repository>`: a mirror URL with a path, to which the client appended /v2 (containerd#6634).
  if (prefixLength > 0 && own[0] === 'v2' && !isEndpointOnly(own)) own = own.slice(1)
  if (target.upstream === DOCKER_HUB && isEndpointOnly(own)) own = ['library', ...own]
  return {
    kind: 'route',
    upstream: target.upstream,
    pattern: target.pattern,
    via,
    rest: own.join('/'),
    outer: asked.outerText,
    stripped: prefixLength === 0 ? undefined : segments.slice(0, prefixLength).join('/'),
    requestedName: endpointDepth(segments) === 0 ? undefined : segments.slice(0, -2).join('/'),
    ociNamespace: asked.ociNamespace,
  }
}

/** How many segments the endpoint at the end of a path takes: 2, or 0 when there is none. */
function endpointDepth(segments: readonly string[]): 0 | 2 {
  const kind = segments.at(-2)
  if (segments.length < 3) return 0
  if (kind === 'tags') return segments.at(-1) === 'list' ? 2 : 0
  return kind === 'manifests' || kind === 'blobs' || kind === 'referrers' ? 2 : 0
}

/** Whether one component and an endpoint are all there is: `alpine/manifests/3`. */
function isEndpointOnly(segments: readonly string[]): boolean {
  return segments.length === 3 && endpointDepth(segments) === 2
}

/** distribution/reference: the first component is a host when it has a dot or a colon, or is localhost. */
function looksLikeDomain(component: string): boolean {
  return component === 'localhost' || (/[.:]/.test(component) && parseAuthority(component) !== undefined)
}

function decodeOnce(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

function problem(code: RouteProblem['code'], message: string): RouteProblem {
  return { kind: 'problem', code, message }
}

function unknown(name: string, why: string): RouteProblem {
  return problem('ROUTE_UNKNOWN', `no upstream is declared for ${quoted(name)}: ${why}`)
}

function foreignDomain(name: string): RouteProblem {
  return unknown(name, 'the repository starts with the name of a registry that this address does not serve')
}

function conflict(first: string, second: string): RouteProblem {
  return problem('ROUTE_CONFLICT', `${first}, ${second}`)
}

/** Text of the client as it may be repeated: short, and without anything but plain characters. */
function quoted(text: string): string {
  return `"${text.slice(0, 100).replace(/[^\w.:/-]/g, '?')}"`
}
