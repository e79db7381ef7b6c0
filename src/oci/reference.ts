/** References: what a manifest is asked by, a tag or a digest. */
import { algorithmOf, hexOf, type Digest } from './digest.ts'

declare const tagBrand: unique symbol
/** A valid tag, case-sensitive. Made only by {@link parseTag} and {@link referrersTag}. */
export type Tag = string & { readonly [tagBrand]: true }
export type Reference = Tag | Digest

// distribution-spec, "Pulling manifests".
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

export function parseTag(text: string): Tag | undefined {
  return TAG.test(text) ? (text as Tag) : undefined
}

/** A tag can hold no colon, so one character tells the two apart. */
export function isDigest(reference: Reference): reference is Digest {
  return reference.includes(':')
}

/** The tag that stands in for the referrers API: `<algorithm>-<hex>`, cut at 32 and 64 (distribution-spec, "Referrers Tag Schema"). */
export function referrersTag(digest: Digest): Tag {
  return `${algorithmOf(digest).slice(0, 32)}-${hexOf(digest).slice(0, 64)}` as Tag
}
