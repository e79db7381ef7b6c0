/** Descriptors: the edges of the image graph. */
import type { Digest } from './digest.ts'

/** What a manifest says of one thing it references (image-spec descriptor.md). `size` is in bytes. */
export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
  readonly platform?: Platform
}

export interface Platform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
}
