/**
 * The upstream port: one registry as configured. Answers come as values, everything else as `GatewayError`:
 * MANIFEST_UNKNOWN, BLOB_UNKNOWN, NAME_UNKNOWN (404), UPSTREAM_DENIED (401 after a fresh token, 403), and the
 * non-answers of `isNonAnswer`. Never a redirect, a challenge or an encoding: those end inside.
 */
import type { Digest } from '../oci/digest.ts'
import type { Reference } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'

/** What a HEAD tells. Undefined where the registry left it out: then only a GET can tell. */
export interface ManifestHead {
  readonly digest: Digest | undefined
  readonly mediaType: string | undefined
  readonly size: number | undefined
}

/** A manifest body as it came, at most `maxManifestBytes` long, not yet hashed. */
export interface FetchedManifest {
  readonly bytes: Uint8Array
  /** Content-Type without parameters, lower case; undefined when missing. */
  readonly mediaType: string | undefined
  /** The digest the registry claims. */
  readonly claimedDigest: Digest | undefined
}

export interface BlobRange {
  readonly from: number
  /** First byte after the range; undefined: to the end. */
  readonly to: number | undefined
}

/** A blob body under way. `body` ends cleanly or rejects; leaving it early destroys the connection. */
export interface BlobStream {
  /** Offset of the first byte of `body`: `from` when the range was honoured, 0 when the registry sent the whole. */
  readonly from: number
  /** First byte after what `body` will give, as announced; undefined when not announced (chunked). */
  readonly to: number | undefined
  /** Length of the whole blob as announced; undefined when not. */
  readonly size: number | undefined
  readonly body: AsyncIterable<Uint8Array>
  /** Ends the transfer now; idempotent. */
  cancel(): void
}

export interface TagPage {
  readonly tags: readonly string[]
  /** Query string of the next page without `?`, as the registry's Link says; undefined on the last page. */
  readonly next: string | undefined
}

export interface ReferrersPage {
  /** The index as it came. */
  readonly bytes: Uint8Array
  readonly filtersApplied: string | undefined
  readonly next: string | undefined
}

export interface CallOptions {
  /** Ends the call. Required: whatever waits can be given up. */
  readonly signal: AbortSignal
  /** `background` work yields to clients and stops first when a rate budget sinks. */
  readonly priority?: 'client' | 'background'
}

export interface BlobCallOptions extends CallOptions {
  readonly range: BlobRange
  /**
   * State of one fill: the signed URL a redirect led to is used again within it and never across fills. Create with
   * `{}`; the upstream owns what is inside.
   */
  readonly session: BlobSession
}

/** What a fill keeps of its source between calls. `location` is opaque to callers. */
export interface BlobSession {
  location?: unknown
  /** Set by the upstream: says that the bytes were wrong, so that whoever sent them is asked last for a while. */
  blame?: () => void
}

export interface Upstream {
  readonly name: string
  headManifest(repository: Repository, reference: Reference, options: CallOptions): Promise<ManifestHead>
  fetchManifest(repository: Repository, reference: Reference, options: CallOptions): Promise<FetchedManifest>
  /** Length of a blob by HEAD, or by GET `bytes=0-0` where HEAD is refused; undefined when the registry does not say. */
  headBlob(repository: Repository, digest: Digest, options: CallOptions): Promise<{ readonly size: number | undefined }>
  openBlob(repository: Repository, digest: Digest, options: BlobCallOptions): Promise<BlobStream>
  /** `query` is passed on as it is (n, last, or a former page's `next`). */
  listTags(repository: Repository, query: string, options: CallOptions): Promise<TagPage>
  /** Undefined when the registry has no referrers API (404 or 405): the tag scheme remains. */
  listReferrers(
    repository: Repository,
    digest: Digest,
    query: string,
    options: CallOptions,
  ): Promise<ReferrersPage | undefined>
  close(): Promise<void>
}
