/**
 * Whether two upstreams claim the same request. Nothing is decided by order: what two files claim is refused, naming
 * both places. A pattern and a name or a narrower pattern it covers are no overlap, since the narrowest wins. Says with
 * line and column what `routing/table.ts` would refuse.
 */
import { comparePatterns, parseHostPattern } from '../routing/pattern.ts'
import { normalizeNs, type DeclaredUpstream } from './declared.ts'
import { formatPlace, type KeyPath, type Problem } from './source.ts'

/** Where a word selects: in `ns`, at the start of a path, as `Host`, or as a port. */
type Space = 'ns' | 'prefix' | 'host' | 'port'

interface Claim {
  readonly what: string
  readonly word: string
  readonly spaces: readonly Space[]
  readonly path: KeyPath
  readonly by: DeclaredUpstream
}

/** One problem for each claim that an earlier upstream made already, at the later place. */
export function checkOverlaps(declared: readonly DeclaredUpstream[]): Problem[] {
  const named = declared.filter(({ upstream }) => !upstream.isPattern)
  const claims = named.flatMap(claimsOf)
  const taken = new Map<string, Claim>()
  const problems: Problem[] = []
  for (const claim of claims) {
    const keys = claim.spaces.map((space) => `${space} ${claim.word}`)
    const earlier = keys.map((key) => taken.get(key)).find((other) => other !== undefined && other.by !== claim.by)
    if (earlier === undefined) for (const key of keys) taken.set(key, claim)
    else problems.push(refuse(claim, `belongs to ${describe(earlier)} already`))
  }
  return [...problems, ...checkNestedPrefixes(claims), ...checkPatterns(declared)]
}

function claimsOf(by: DeclaredUpstream): Claim[] {
  const { name, aliases, routes } = by.upstream
  const claim = (what: string, word: string, path: KeyPath, spaces: readonly Space[]): Claim => ({
    what,
    word,
    spaces,
    path,
    by,
  })
  return [
    claim('name', normalizeNs(name), ['name'], ['ns', 'prefix']),
    ...aliases.map((alias, index) => claim('alias', alias, ['aliases', index], ['ns', 'prefix'])),
    // An `ns` with one of our own host names means that upstream too, so a host must not be another one's name.
    ...routes.hosts.map((host, index) => claim('host', normalizeNs(host), ['routes', 'hosts', index], ['host', 'ns'])),
    ...(routes.port === undefined ? [] : [claim('port', String(routes.port), ['routes', 'port'], ['port'])]),
    ...(routes.prefix === undefined || routes.prefix === name
      ? []
      : [claim('prefix', routes.prefix, ['routes', 'prefix'], ['prefix'])]),
  ]
}

/** Two prefixes of which one continues the other: `a` and `a/b` both claim the path `a/b/…`. */
function checkNestedPrefixes(claims: readonly Claim[]): Problem[] {
  const prefixes = claims.filter(({ spaces }) => spaces.includes('prefix'))
  const byWord = new Map(prefixes.map((claim) => [claim.word, claim]))
  return prefixes.flatMap((inner) => {
    const parts = inner.word.split('/')
    const outer = parts
      .map((_, length) => byWord.get(parts.slice(0, length).join('/')))
      .find((other) => other !== undefined)
    return outer === undefined || outer.by === inner.by
      ? []
      : [refuse(inner, `lies inside ${outer.word} of ${describe(outer)}`)]
  })
}

function checkPatterns(declared: readonly DeclaredUpstream[]): Problem[] {
  const patterns = declared.flatMap((by) => {
    const pattern = by.upstream.isPattern ? parseHostPattern(by.upstream.name) : undefined
    return pattern === undefined
      ? []
      : [{ pattern, claim: { what: 'pattern', word: pattern.text, spaces: [], path: ['name'], by } }]
  })
  return patterns.flatMap(({ pattern, claim }, index) => {
    const earlier = patterns
      .slice(0, index)
      .find((other) => ['equal', 'crossing'].includes(comparePatterns(pattern, other.pattern)))
    return earlier === undefined
      ? []
      : [refuse(claim, `covers hosts that ${earlier.claim.word} of ${describe(earlier.claim)} covers too`)]
  })
}

function describe({ by, path }: Claim): string {
  return `upstream ${by.upstream.name} at ${formatPlace(by.source.placeOf(path))}`
}

function refuse(claim: Claim, why: string): Problem {
  return claim.by.source.problemAt(claim.path, `${claim.what} ${claim.word} ${why}: change one of the two`)
}
