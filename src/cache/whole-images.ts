/**
 * Which manifest of a tag is of use while the upstream is away? A tag may have moved to an image of which little was
 * pulled before the outage; then the newest image that is whole for a platform stands in. Rule: design.md section 6.
 */
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { childrenOf, parseManifest, type Manifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'
import type { Membership } from './membership.ts'

export interface WholeImagesOptions {
  readonly store: Store
  readonly membership: Membership
  /** A manifest that is here and readable for the repository. */
  readonly findHeld: (repository: Repository, digest: Digest) => Promise<Manifest | undefined>
}

/** Former targets of a tag that are looked at. */
const MAX_FORMER = 32
/** An index may name indexes. */
const MAX_DEPTH = 4
/** Layers that registries need not have: their bytes come from elsewhere (image-spec layer.md, Docker's foreign layers). */
const NOT_DISTRIBUTED = /\.(?:foreign|nondistributable)\./

export class WholeImages {
  readonly #options: WholeImagesOptions

  constructor(options: WholeImagesOptions) {
    this.#options = options
  }

  /** `current` when it is whole for at least one platform, or when nothing the tag pointed to before is. */
  async standInFor(repository: Repository, tag: Tag, current: Manifest): Promise<Manifest> {
    if (await this.#isWhole(repository, current, MAX_DEPTH)) return current
    for (const digest of await this.#options.store.listTagHistory(repository, tag, MAX_FORMER)) {
      const former = digest === current.digest ? undefined : await this.#options.findHeld(repository, digest)
      if (former !== undefined && (await this.#isWhole(repository, former, MAX_DEPTH))) return former
    }
    return current
  }

  async #isWhole(repository: Repository, manifest: Manifest, depth: number): Promise<boolean> {
    const parsed = parseManifest(manifest.bytes)
    // What cannot be read cannot be found wanting.
    if (parsed === undefined || parsed.kind === 'schema1') return true
    if (parsed.kind === 'index') return this.#hasWholePlatform(repository, parsed.manifests, depth)
    for (const { role, digest, mediaType } of childrenOf(parsed)) {
      if (role === 'subject' || NOT_DISTRIBUTED.test(mediaType)) continue
      if (!(await this.#isHeld(repository, digest))) return false
    }
    return true
  }

  async #hasWholePlatform(repository: Repository, entries: readonly Descriptor[], depth: number): Promise<boolean> {
    // Attestations stand in an index as platforms of nothing.
    const platforms = entries.filter(({ platform }) => platform?.os !== 'unknown')
    if (platforms.length === 0 || depth === 0) return true
    for (const { digest } of platforms) {
      const child = await this.#options.findHeld(repository, digest)
      if (child !== undefined && (await this.#isWhole(repository, child, depth - 1))) return true
    }
    return false
  }

  async #isHeld(repository: Repository, digest: Digest): Promise<boolean> {
    const { store, membership } = this.#options
    if ((await store.statBlob(digest)) === undefined) return false
    return (await membership.isLinked(repository, 'blob', digest)) || membership.isNamed(repository, 'blob', digest)
  }
}
