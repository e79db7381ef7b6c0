/**
 * Whether two upstreams claim the same request. Nothing is decided by order: what two files claim is refused, naming
 * both places. A pattern and a name it covers are no overlap, since the exact name always wins.
 */
import { normalizeNs, type DeclaredUpstream } from './declared.ts'
import { formatPlace, type KeyPath, type Problem } from './source.ts'

interface Claim {
  readonly what: 'name' | 'ns' | 'prefix' | 'host' | 'port'
  readonly value: string
  readonly path: KeyPath
  readonly by: DeclaredUpstream
}

/** One problem for each claim that an earlier upstream made already, at the later place. */
export function checkOverlaps(declared: readonly DeclaredUpstream[]): Problem[] {
  const claimed = new Map<string, Claim>()
  const problems: Problem[] = []
  for (const claim of declared.flatMap(claimsOf)) {
    // A name and an alias are the same kind of claim: both are `ns` values.
    const key = `${claim.what === 'name' ? 'ns' : claim.what} ${claim.value}`
    const earlier = claimed.get(key)
    if (earlier === undefined) claimed.set(key, claim)
    else if (earlier.by !== claim.by) problems.push(overlap(claim, earlier))
  }
  return [...problems, ...checkNested(declared)]
}

function claimsOf(by: DeclaredUpstream): Claim[] {
  const { name, aliases, routes } = by.upstream
  const claims: Claim[] = [{ what: 'name', value: normalizeNs(name), path: ['name'], by }]
  for (const [index, value] of aliases.entries()) claims.push({ what: 'ns', value, path: ['aliases', index], by })
  for (const [index, value] of routes.hosts.entries())
    claims.push({ what: 'host', value, path: ['routes', 'hosts', index], by })
  if (routes.port !== undefined) claims.push({ what: 'port', value: String(routes.port), path: ['routes', 'port'], by })
  if (routes.prefix !== undefined) claims.push({ what: 'prefix', value: routes.prefix, path: ['routes', 'prefix'], by })
  return claims
}

function overlap(claim: Claim, earlier: Claim): Problem {
  const other = `upstream ${earlier.by.upstream.name} at ${formatPlace(earlier.by.source.placeOf(earlier.path))}`
  const message = `${claim.what} ${claim.value} belongs to ${other} already: change one of the two`
  return claim.by.source.problemAt(claim.path, message)
}

/** Two prefixes of which one continues the other: `a` and `a/b` both claim the path `a/b/…`. */
function checkNested(declared: readonly DeclaredUpstream[]): Problem[] {
  const byPrefix = new Map(declared.map((each) => [each.upstream.routes.prefix, each]))
  return declared.flatMap((inner) => {
    const { prefix } = inner.upstream.routes
    const parts = prefix?.split('/') ?? []
    for (let length = 1; length < parts.length; length++) {
      const outer = byPrefix.get(parts.slice(0, length).join('/'))
      if (outer === undefined || outer === inner) continue
      const other = `${outer.upstream.routes.prefix} of upstream ${outer.upstream.name} at ${formatPlace(outer.source.placeOf(['routes', 'prefix']))}`
      return [
        inner.source.problemAt(
          ['routes', 'prefix'],
          `prefix ${prefix} lies inside prefix ${other}: change one of the two`,
        ),
      ]
    }
    return []
  })
}
