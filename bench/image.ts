// Generated images: layers of incompressible bytes from a seed, held in memory, their digests computed once.

import { createCipheriv, createHash } from 'node:crypto'
import { digestOf } from '../src/oci/digest.ts'
import { OCI_MANIFEST } from '../src/oci/media-types.ts'

export interface ImagePlan {
  readonly repository: string
  readonly tag: string
  /** Bytes of each layer. */
  readonly layers: readonly number[]
  /** Two plans that differ in nothing but the seed share no blob. */
  readonly seed: string
}

/** A blob or manifest by its address. */
export interface Part {
  readonly digest: string
  readonly size: number
}

/** What a client needs to know to pull it. */
export interface Image {
  readonly repository: string
  readonly tag: string
  readonly manifest: Part
  readonly config: Part
  readonly layers: readonly Part[]
  /** Manifest, config and layers. */
  readonly bytes: number
}

export interface GeneratedImage extends Image {
  readonly content: ReadonlyMap<string, Uint8Array>
}

/** The same plan always gives the same bytes. */
export function generateImage(plan: ImagePlan): GeneratedImage {
  const content = new Map<string, Uint8Array>()
  const add = (bytes: Uint8Array): Part => {
    const digest = digestOf(bytes)
    content.set(digest, bytes)
    return { digest, size: bytes.length }
  }
  const layers = plan.layers.map((size, index) => add(layerBytes(`${plan.seed}/${index}`, size)))
  const config = add(
    Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        config: { Labels: { seed: plan.seed } },
        rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.digest) },
      }),
    ),
  )
  const manifest = add(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
        layers: layers.map((layer) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...layer })),
      }),
    ),
  )
  const bytes = [manifest, config, ...layers].reduce((sum, part) => sum + part.size, 0)
  return { repository: plan.repository, tag: plan.tag, manifest, config, layers, bytes, content }
}

/** AES in counter mode over zeros: a gigabyte a second of bytes that no compression shrinks. */
function layerBytes(seed: string, size: number): Uint8Array {
  const key = createHash('sha256').update(seed).digest()
  const cipher = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16))
  return cipher.update(Buffer.alloc(size))
}
