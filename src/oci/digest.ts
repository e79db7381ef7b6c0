/** Digests: the address of every manifest and blob. Nothing else in the code builds a `Digest`. */
import { createHash, type Hash } from 'node:crypto'

declare const digestBrand: unique symbol
/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case. Made only by {@link parseDigest} and {@link digestOf}. */
export type Digest = string & { readonly [digestBrand]: true }
export type DigestAlgorithm = 'sha256' | 'sha512'

// Registered algorithms only (image-spec descriptor.md): bytes under an algorithm we cannot compute could never be verified.
const REGISTERED = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/

/** Parses a digest; anything but the two registered forms is undefined. Upper-case hex is malformed (image-spec). */
export function parseDigest(text: string): Digest | undefined {
  return REGISTERED.test(text) ? (text as Digest) : undefined
}

export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256'
}

export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

/** The digest of `bytes` under `algorithm`. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return finishDigest(algorithm, createHash(algorithm).update(bytes))
}

/** Ends a running hash of `algorithm` as a digest; the hash cannot be used afterwards. */
export function finishDigest(algorithm: DigestAlgorithm, hash: Hash): Digest {
  return `${algorithm}:${hash.digest('hex')}` as Digest
}
