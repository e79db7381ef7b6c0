/** Which repositories of an upstream may be pulled: allow and deny globs from its file. Pure. */
import type { Repository } from '../oci/repository.ts'
import { globMatcher } from './globs.ts'

export interface RepositoryRulesOptions {
  /** Globs in which `*` stops at `/` and `**` does not. Default: all. */
  readonly allow?: readonly string[]
  /** Wins over `allow`. Default: none. */
  readonly deny?: readonly string[]
}

export class RepositoryRules {
  readonly #allowed: (repository: string) => boolean
  readonly #denied: (repository: string) => boolean

  constructor({ allow = ['**'], deny = [] }: RepositoryRulesOptions) {
    this.#allowed = globMatcher(allow)
    this.#denied = globMatcher(deny)
  }

  /** Whether `repository` may be served. `org/**` covers `org` itself too. */
  allows(repository: Repository): boolean {
    return this.refusalOf(repository) === undefined
  }

  /** The key that refuses `repository`; undefined when it may be served. */
  refusalOf(repository: Repository): 'allow' | 'deny' | undefined {
    if (this.#denied(repository)) return 'deny'
    return this.#allowed(repository) ? undefined : 'allow'
  }
}
