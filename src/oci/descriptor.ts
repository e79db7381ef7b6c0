/** Descriptors: the edges of the image graph. */
import { isJsonObject, ownMember, type JsonValue } from './bounded-json.ts'
import { parseDigest, type Digest } from './digest.ts'

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

/**
 * A list of descriptors; an absent one is empty. Undefined when any entry is invalid: half a list would keep some proofs
 * and lose others without a word.
 */
export function parseDescriptors(value: JsonValue | undefined): readonly Descriptor[] | undefined {
  if (value === undefined) return []
  if (!Array.isArray(value)) return undefined
  const descriptors: Descriptor[] = []
  for (const entry of value as readonly JsonValue[]) {
    const descriptor = parseDescriptor(entry)
    if (descriptor === undefined) return undefined
    descriptors.push(descriptor)
  }
  return descriptors
}

/** One descriptor. Undefined unless type, digest (a registered algorithm) and size are there and valid. */
export function parseDescriptor(value: JsonValue): Descriptor | undefined {
  if (!isJsonObject(value)) return undefined
  const mediaType = ownMember(value, 'mediaType')
  const digestText = ownMember(value, 'digest')
  const size = ownMember(value, 'size')
  const digest = typeof digestText === 'string' ? parseDigest(digestText) : undefined
  if (typeof mediaType !== 'string' || digest === undefined) return undefined
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined
  const artifactType = ownMember(value, 'artifactType')
  const annotations = parseAnnotations(ownMember(value, 'annotations'))
  const platform = parsePlatform(ownMember(value, 'platform'))
  return {
    mediaType,
    digest,
    size,
    ...(typeof artifactType === 'string' && { artifactType }),
    ...(annotations && { annotations }),
    ...(platform && { platform }),
  }
}

/** Annotations of a manifest or descriptor. Values that are no strings are left out: nothing is decided by them. */
export function parseAnnotations(value: JsonValue | undefined): Readonly<Record<string, string>> | undefined {
  if (!isJsonObject(value)) return undefined
  // fromEntries defines own properties, so that a key named __proto__ stays a key.
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )
}

function parsePlatform(value: JsonValue | undefined): Platform | undefined {
  if (!isJsonObject(value)) return undefined
  const os = ownMember(value, 'os')
  const architecture = ownMember(value, 'architecture')
  const variant = ownMember(value, 'variant')
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined
  return { os, architecture, ...(typeof variant === 'string' && variant !== '' && { variant }) }
}
