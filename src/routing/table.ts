/**
 * What each upstream's file says about routes, as one lookup table. Two files that claim the same address are refused
 * when the table is made: which of them answers would otherwise depend on their order. Pure.
 */
import { GatewayError } from '../errors.ts'
import { parseRepository } from '../oci/repository.ts'
import { authorityKey, parseAuthority, type Authority } from './authority.ts'
import { comparePatterns, matchesPattern, parseHostPattern, type HostPattern } from './pattern.ts'

/** The routes of one upstream. Its name is its `ns` and its prefix without being listed. */
export interface RouteEntry {
  /** `docker.io`, or a pattern such as `*.pkg.dev`. */
  readonly upstream: string
  /** Where it is written, `file:line:column`, for messages. */
  readonly place: string
  /** Further names that `ns` and prefixes may use. */
  readonly aliases?: readonly string[]
  /** Names this gateway is reached by, in `Host` or SNI, for this upstream alone. */
  readonly hosts?: readonly string[]
  readonly port?: number | undefined
  /** Another word for the prefix, beside the name. */
  readonly prefix?: string | undefined
}

/** Where a selector leads. `pattern` is the entry it came from when the upstream is not declared by its own name. */
export interface RouteTarget {
  readonly upstream: string
  readonly pattern: string | undefined
}

export interface PrefixMatch {
  readonly target: RouteTarget
  /** How many path segments the prefix takes. */
  readonly length: number
}

export interface RouteTableOptions {
  /** Other names of this gateway (its `externalUrl`): an `ns` that names one of them selects nothing. */
  readonly ownHosts?: readonly string[]
}

export const DOCKER_HUB = 'docker.io'
// Names the field uses for Docker Hub's registry (regclient sends the first, old tools the others).
const DOCKER_HUB_ALIASES = ['registry-1.docker.io', 'index.docker.io', 'registry.hub.docker.com']
/** A prefix may have several components; this bounds how many a lookup tries. */
const MAX_PREFIX_SEGMENTS = 4

interface Claim {
  readonly target: RouteTarget
  readonly place: string
}
type Claims = Map<string, Claim>

export class RouteTable {
  readonly #namespaces: Claims = new Map()
  readonly #hosts: Claims = new Map()
  readonly #ports: Claims = new Map()
  readonly #prefixes: Claims = new Map()
  readonly #patterns: { readonly pattern: HostPattern; readonly place: string }[] = []
  readonly #ownHosts: ReadonlySet<string>

  private constructor(ownHosts: readonly string[]) {
    this.#ownHosts = new Set(ownHosts.map(normalized))
  }

  /**
   * Builds the table. Throws CONFIG_INVALID that lists every overlap and every unusable entry, one a line, each with the
   * places it is written at.
   */
  static from(entries: readonly RouteEntry[], options: RouteTableOptions = {}): RouteTable {
    const table = new RouteTable(options.ownHosts ?? [])
    const problems = entries.flatMap((entry) =>
      entry.upstream.includes('*') ? table.#addPattern(entry) : table.#addNamed(entry),
    )
    table.#addDockerHubAliases()
    problems.push(...table.#crossClaims())
    if (problems.length > 0) throw new GatewayError('CONFIG_INVALID', problems.join('\n'))
    return table
  }

  /** Whether `name` is declared by its own name, as a listener's default must be. */
  has(name: string): boolean {
    return this.#namespaces.get(name.toLowerCase())?.target.upstream === name
  }

  /** The upstream declared under this very name: its own, an alias, or a host of ours that stands for it. */
  byName(authority: Authority): RouteTarget | undefined {
    const key = authorityKey(authority)
    return (this.#namespaces.get(key) ?? this.#hosts.get(key))?.target
  }

  byPort(port: number): RouteTarget | undefined {
    return this.#ports.get(String(port))?.target
  }

  /**
   * The upstream a host of ours stands for; a route written without a port holds for every port. A Host that is an
   * upstream's own name (a site that answers for it in DNS) can only mean that upstream.
   */
  byHost(authority: Authority): RouteTarget | undefined {
    const claim = this.#hosts.get(authorityKey(authority)) ?? this.#hosts.get(authority.name)
    return (claim ?? this.#namespaces.get(authorityKey(authority)))?.target
  }

  /** The upstream that the first segments of a path name. The longest prefix wins. */
  byPrefix(segments: readonly string[]): PrefixMatch | undefined {
    for (let length = Math.min(MAX_PREFIX_SEGMENTS, segments.length); length > 0; length--) {
      const target = this.#prefixes.get(segments.slice(0, length).join('/').toLowerCase())?.target
      if (target !== undefined) return { target, length }
    }
    const target = this.byPattern((segments[0] ?? '').toLowerCase())
    return target === undefined ? undefined : { target, length: 1 }
  }

  /** Whether a host is one of this gateway's other names. */
  isOwn(authority: Authority): boolean {
    return this.#ownHosts.has(authorityKey(authority)) || this.#ownHosts.has(authority.name)
  }

  /** The upstream that a host makes by fitting a pattern, the narrowest one. Never a name of our own. */
  byPattern(host: string): RouteTarget | undefined {
    if (this.#ownHosts.has(host) || this.#hosts.has(host)) return undefined
    const fitting = this.#patterns.filter(({ pattern }) => matchesPattern(pattern, host))
    const [best] = fitting.sort((a, b) => (comparePatterns(a.pattern, b.pattern) === 'narrower' ? -1 : 1))
    return best === undefined ? undefined : { upstream: host, pattern: best.pattern.text }
  }

  #addNamed(entry: RouteEntry): string[] {
    const claim: Claim = { target: { upstream: entry.upstream, pattern: undefined }, place: entry.place }
    const problems: string[] = []
    const add = (claims: Claims, kind: string, key: string): void => {
      const other = claims.get(key)
      if (other === undefined) claims.set(key, claim)
      else if (other.target.upstream !== entry.upstream || other.place !== entry.place)
        problems.push(overlap(kind, key, other, claim))
    }
    for (const name of [entry.upstream, ...(entry.aliases ?? [])]) {
      if (parseAuthority(name) === undefined)
        problems.push(`${entry.place}: "${name}" is not a name of a registry, host[:port]`)
      add(this.#namespaces, 'the name', normalized(name))
      add(this.#prefixes, 'the prefix', normalized(name))
    }
    for (const host of entry.hosts ?? []) {
      if (parseAuthority(host) === undefined) problems.push(`${entry.place}: "${host}" is not a host name`)
      add(this.#hosts, 'the host', normalized(host))
    }
    if (entry.port !== undefined) add(this.#ports, 'the port', String(entry.port))
    if (entry.prefix !== undefined && entry.prefix !== entry.upstream) {
      const problem = prefixProblem(entry.prefix)
      if (problem === undefined) add(this.#prefixes, 'the prefix', entry.prefix)
      else problems.push(`${entry.place}: the prefix "${entry.prefix}" ${problem}`)
    }
    return problems
  }

  #addPattern(entry: RouteEntry): string[] {
    const pattern = parseHostPattern(entry.upstream)
    if (pattern === undefined) return [`${entry.place}: "${entry.upstream}" is not a host pattern such as *.pkg.dev`]
    const fixed = entry.hosts?.length || entry.aliases?.length || entry.port !== undefined
    if (fixed || (entry.prefix !== undefined && entry.prefix !== entry.upstream)) {
      return [
        `${entry.place}: the pattern "${entry.upstream}" cannot have hosts, a port, a prefix or aliases: ` +
          'they would not say which of its hosts is meant',
      ]
    }
    const problems = this.#patterns
      .filter((other) => ['equal', 'crossing'].includes(comparePatterns(pattern, other.pattern)))
      .map(
        (other) => `${entry.place}: the pattern "${pattern.text}" overlaps "${other.pattern.text}" at ${other.place}`,
      )
    this.#patterns.push({ pattern, place: entry.place })
    return problems
  }

  #addDockerHubAliases(): void {
    const hub = this.#namespaces.get(DOCKER_HUB)
    if (hub?.target.upstream !== DOCKER_HUB) return
    for (const alias of DOCKER_HUB_ALIASES) {
      if (!this.#namespaces.has(alias)) this.#namespaces.set(alias, hub)
      if (!this.#prefixes.has(alias)) this.#prefixes.set(alias, hub)
    }
  }

  /** A host of ours that is also another upstream's name, and a prefix that hides a part of another's. */
  #crossClaims(): string[] {
    const problems: string[] = []
    for (const [key, claim] of this.#hosts) {
      const other = this.#namespaces.get(key)
      if (other !== undefined && other.target.upstream !== claim.target.upstream) {
        problems.push(overlap('the name', key, other, claim))
      }
    }
    for (const [key, claim] of this.#prefixes) {
      for (let slash = key.indexOf('/'); slash !== -1; slash = key.indexOf('/', slash + 1)) {
        const other = this.#prefixes.get(key.slice(0, slash))
        if (other !== undefined && other.target.upstream !== claim.target.upstream) {
          problems.push(
            `${claim.place}: the prefix "${key}" lies within the prefix "${key.slice(0, slash)}" at ${other.place}`,
          )
        }
      }
    }
    return problems
  }
}

function overlap(kind: string, key: string, first: Claim, second: Claim): string {
  return (
    `${second.place}: ${kind} "${key}" of ${second.target.upstream} is taken by ${first.target.upstream} ` +
    `at ${first.place}; change one of them`
  )
}

function normalized(name: string): string {
  const authority = parseAuthority(name)
  return authority === undefined ? name.toLowerCase() : authorityKey(authority)
}

function prefixProblem(prefix: string): string | undefined {
  if (parseRepository(prefix) === undefined) return 'does not fit the grammar of repository names'
  const segments = prefix.split('/')
  if (segments.length > MAX_PREFIX_SEGMENTS) return `has more than ${MAX_PREFIX_SEGMENTS} components`
  if (segments[0] === 'v2') return 'would hide the registry API itself'
  return undefined
}
