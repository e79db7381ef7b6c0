/** What to ask a token server for: as little as the call needs. Pure. */
import type { Repository } from '../oci/repository.ts'

const MAX_SCOPES = 8
const MAX_SCOPE_LENGTH = 512
const REPOSITORY_SCOPE = /^(repository(?:\([a-z0-9]+\))?):(.+):([^:]*)$/

/** `repository:<name>:pull`. */
export function pullScope(repository: Repository): string {
  return `repository:${repository}:pull`
}

/**
 * The scopes for one call, the needed one first since some servers honour only that. A repository the challenge names is
 * believed (behind a path prefix it is not the one we asked for) but reduced to `pull`; when it names none, ours is put
 * before what it asks for (Amazon ECR Public: `aws`; GitLab's dependency proxy: nothing).
 */
export function planScopes(challenged: string | undefined, repository: Repository): string[] {
  const asked = (challenged ?? '')
    .split(/\s+/)
    .filter((scope) => scope !== '' && scope.length <= MAX_SCOPE_LENGTH)
    .slice(0, MAX_SCOPES)
    .map(reduceToPull)
  const repositories = asked.filter((scope) => REPOSITORY_SCOPE.test(scope))
  const others = asked.filter((scope) => !REPOSITORY_SCOPE.test(scope))
  return [...new Set([...(repositories.length === 0 ? [pullScope(repository)] : repositories), ...others])]
}

/** Whether the scope follows from the repository alone, so that it can be asked for without a challenge first. */
export function isPredictable(scopes: readonly string[], repository: Repository): boolean {
  return scopes.length === 1 && scopes[0] === pullScope(repository)
}

/** Equal sets of scopes give equal text: part of a token's cache key. */
export function scopeKey(scopes: readonly string[]): string {
  return [...new Set(scopes)].sort().join(' ')
}

function reduceToPull(scope: string): string {
  const [, type, name, actions] = REPOSITORY_SCOPE.exec(scope) ?? []
  return actions?.split(',').includes('pull') === true ? `${type}:${name}:pull` : scope
}
