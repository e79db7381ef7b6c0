/** Manifests: bytes that are never re-encoded, and what can be read from them. */
import type { Descriptor } from './descriptor.ts'
import type { Digest } from './digest.ts'

/** A manifest as it is stored and served. `mediaType` is what the upstream said, or what the bytes say. */
export interface Manifest {
  readonly digest: Digest
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** Manifest bodies above this are refused. The spec asks for at least 4 MiB; containerd takes 4,393,216 bytes. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024

export interface Index {
  readonly kind: 'index'
  readonly mediaType: string | undefined
  readonly manifests: readonly Descriptor[]
  readonly subject: Descriptor | undefined
  readonly artifactType: string | undefined
  readonly annotations: Readonly<Record<string, string>> | undefined
}

export interface ImageManifest {
  readonly kind: 'image'
  readonly mediaType: string | undefined
  readonly config: Descriptor | undefined
  readonly layers: readonly Descriptor[]
  readonly subject: Descriptor | undefined
  readonly artifactType: string | undefined
  readonly annotations: Readonly<Record<string, string>> | undefined
}

/** `schema1` names its layers by other rules and is passed on without being read. */
export type ParsedManifest =
  | Index
  | ImageManifest
  | { readonly kind: 'schema1'; readonly mediaType: string | undefined }
