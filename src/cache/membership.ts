/**
 * May this repository serve this digest? A digest is an address, never a right: a repository may serve what its own
 * upstream answered 2xx for, or, where every client may read all that the upstream identity may, what a verified
 * manifest of that repository names.
 */
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Ledger, ParentRecord } from '../ledger/ledger.ts'
import type { LinkKind, Store } from '../store/store.ts'

export interface MembershipOptions {
  readonly namespace: string
  readonly store: Store
  readonly ledger: Ledger
  /** Every client may read all that our identity at the upstream may. */
  readonly isShared: boolean
}

export class Membership {
  readonly #options: MembershipOptions

  constructor(options: MembershipOptions) {
    this.#options = options
  }

  async isLinked(repository: Repository, kind: LinkKind, digest: Digest): Promise<boolean> {
    return (await this.#options.store.readLink(repository, kind, digest)) === 'linked'
  }

  /** Whether a manifest of `repository` is proof enough. Never true after the upstream took the right back. */
  async isNamed(repository: Repository, kind: LinkKind, digest: Digest): Promise<boolean> {
    if (!this.#options.isShared) return false
    const { store } = this.#options
    if ((await store.readLink(repository, kind, digest)) === 'revoked') return false
    // A manifest that is revoked itself names nothing any more. Mostly the first one settles it.
    for (const { parent } of await this.#naming(repository, digest)) {
      if ((await store.readLink(repository, 'manifest', parent)) !== 'revoked') return true
    }
    return false
  }

  /** What a verified manifest of `repository` says of `digest`: its size, whatever that proves. */
  async namedBy(repository: Repository, digest: Digest): Promise<ParentRecord | undefined> {
    const [first] = await this.#naming(repository, digest)
    return first
  }

  async #naming(repository: Repository, digest: Digest): Promise<ParentRecord[]> {
    const { ledger, namespace } = this.#options
    const parents = await ledger.readParents(namespace, repository, digest)
    return parents.filter(({ role }) => role !== 'subject')
  }
}
