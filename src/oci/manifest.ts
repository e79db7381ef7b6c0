/**
 * Manifests: bytes that are never re-encoded, and what can be read from them. A document that two clients could read as
 * two different things is not read at all (CVE-2021-41190).
 */
import { isJsonObject, ownMember, parseBoundedJson, type JsonObject, type JsonValue } from './bounded-json.ts'
import { parseAnnotations, parseDescriptor, parseDescriptors, type Descriptor } from './descriptor.ts'
import type { Digest } from './digest.ts'
import {
  DOCKER_SCHEMA1,
  DOCKER_SCHEMA1_SIGNED,
  IMAGE_TYPES,
  INDEX_TYPES,
  OCI_ARTIFACT,
  OCI_INDEX,
  OCI_MANIFEST,
} from './media-types.ts'

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

/** `manifest`: an entry of an index that is a manifest itself; an index may also name blobs (BuildKit's cache does). */
export type ChildRole = 'manifest' | 'config' | 'layer' | 'subject'

export interface Child extends Descriptor {
  readonly role: ChildRole
}

/** Real manifests nest five deep; the longest known index has some hundred entries. */
const LIMITS = { maxBytes: MAX_MANIFEST_BYTES, maxDepth: 32, maxEntries: 10_000 }

// RFC 6838 section 4.2, both halves. Keeps whatever ends up in a Content-Type free of spaces and line ends.
const MEDIA_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$/i

const SCHEMA1_TYPES: readonly string[] = [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED]
/** Members whose spelling decides what a document is; a decoder that ignores case (Go's) must not see another one. */
const DECIDING_MEMBERS: readonly string[] = ['schemaVersion', 'mediaType', 'manifests', 'layers', 'config', 'blobs']

/** The outside of a document: valid, unambiguous, its descriptors not read yet. */
interface Outline {
  /** `other`: a JSON object that is none of the kinds we read. */
  readonly kind: ParsedManifest['kind'] | 'other'
  readonly mediaType: string | undefined
  readonly document: JsonObject
}

/**
 * Reads a manifest. Undefined, never an error, when the bytes are longer than {@link MAX_MANIFEST_BYTES}, no JSON object,
 * deeper or longer than any manifest is, of no known kind, ambiguous, or have a descriptor that is not valid. Unknown
 * members are ignored. Rules: image-spec manifest.md, image-index.md, descriptor.md.
 */
export function parseManifest(bytes: Uint8Array): ParsedManifest | undefined {
  const outline = parseOutline(bytes)
  if (outline === undefined || outline.kind === 'other') return undefined
  const { kind, mediaType, document } = outline
  if (kind === 'schema1') return { kind, mediaType }
  const subject = parseOptional(ownMember(document, 'subject'), parseDescriptor)
  if (subject === 'invalid') return undefined
  const artifactType = ownMember(document, 'artifactType')
  const common = {
    mediaType,
    subject,
    artifactType: typeof artifactType === 'string' ? artifactType : undefined,
    annotations: parseAnnotations(ownMember(document, 'annotations')),
  }
  if (kind === 'index') {
    const manifests = parseDescriptors(ownMember(document, 'manifests'))
    return manifests && { kind, ...common, manifests }
  }
  const config = parseOptional(ownMember(document, 'config'), parseDescriptor)
  // The withdrawn artifact manifest calls its layers blobs.
  const layers = parseDescriptors(ownMember(document, 'layers') ?? ownMember(document, 'blobs'))
  if (config === 'invalid' || layers === undefined) return undefined
  return { kind, ...common, config, layers }
}

/**
 * The type a stock registry serves these bytes with: what they say themselves, else by their members. Undefined when
 * they say nothing. Rule: distribution, registry/storage/manifeststore.go; schema1 by whether it is signed.
 */
export function deriveMediaType(bytes: Uint8Array): string | undefined {
  const outline = parseOutline(bytes)
  return outline && derivedType(outline)
}

/** Whether a descriptor of this type is asked at `/manifests/`, by every client. */
export function isManifestType(mediaType: string): boolean {
  return (
    INDEX_TYPES.includes(mediaType) ||
    IMAGE_TYPES.includes(mediaType) ||
    SCHEMA1_TYPES.includes(mediaType) ||
    mediaType === OCI_ARTIFACT
  )
}

/** Everything a manifest references, in its own order. A digest may stand in it more than once. */
export function childrenOf(parsed: ParsedManifest): readonly Child[] {
  if (parsed.kind === 'schema1') return []
  const children: Child[] = []
  if (parsed.kind === 'index') {
    for (const entry of parsed.manifests) children.push({ ...entry, role: indexEntryRole(entry.mediaType) })
  } else {
    if (parsed.config) children.push({ ...parsed.config, role: 'config' })
    for (const layer of parsed.layers) children.push({ ...layer, role: 'layer' })
  }
  if (parsed.subject) children.push({ ...parsed.subject, role: 'subject' })
  return children
}

export type ManifestTypeVerdict = { readonly mediaType: string } | { readonly problem: string }

/**
 * The type to store and serve a manifest body with, given the Content-Type it came with (parameters are ignored).
 * A problem, as a sentence's end, when header and body disagree, the body reads two ways, or it is no manifest at all.
 */
export function manifestTypeFor(contentType: string | undefined, bytes: Uint8Array): ManifestTypeVerdict {
  const claimed = contentType?.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (claimed === 'text/html' || claimed === 'application/xhtml+xml') {
    return { problem: `an HTML page (${claimed}) instead of a manifest: a login page or a proxy on the way answered` }
  }
  const isKnown = isManifestType(claimed)
  const isGeneric = GENERIC_TYPES.includes(claimed)
  // A type of the future is kept as it came when it can be a manifest's at all.
  if (!isKnown && !isGeneric && !(claimed.endsWith('+json') && MEDIA_TYPE.test(claimed))) {
    return { problem: `Content-Type ${quoted(claimed)}, which no manifest has` }
  }
  const outline = parseOutline(bytes)
  if (outline === undefined) {
    return { problem: 'a body that is no manifest: no JSON object, too large, too deep, or readable in two ways' }
  }
  if (isGeneric) {
    const mediaType = derivedType(outline)
    return mediaType === undefined
      ? { problem: `Content-Type ${quoted(claimed)} and a body that does not say what it is` }
      : { mediaType }
  }
  if (outline.mediaType !== undefined && outline.mediaType.toLowerCase() !== claimed) {
    return { problem: `Content-Type ${claimed} for a body whose mediaType is ${quoted(outline.mediaType)}` }
  }
  if (isKnown && kindOfType(claimed) !== outline.kind) {
    return { problem: `Content-Type ${claimed} for a body that is ${KIND_NAMES[outline.kind]}` }
  }
  return { mediaType: claimed }
}

/** Types that say nothing of the body; '' is a missing header. */
const GENERIC_TYPES: readonly string[] = [
  '',
  'text/plain',
  'application/json',
  'application/octet-stream',
  'binary/octet-stream',
]

const KIND_NAMES = {
  index: 'an index',
  image: 'an image manifest',
  schema1: 'a schema 1 manifest',
  other: 'none of the known kinds',
} as const

/** Foreign text as it may stand in a message: cut, and with nothing that could start a new line. */
function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100))
}

function parseOutline(bytes: Uint8Array): Outline | undefined {
  const document = parseBoundedJson(bytes, LIMITS)
  if (!isJsonObject(document) || hasDisguisedMember(document)) return undefined
  const said = ownMember(document, 'mediaType')
  if (said !== undefined && (typeof said !== 'string' || (said !== '' && !MEDIA_TYPE.test(said)))) return undefined
  // An empty string is what Go writes for "none".
  const mediaType = said === '' ? undefined : said
  const kind = kindOf(document, mediaType)
  return kind && { kind, mediaType, document }
}

function hasDisguisedMember(document: JsonObject): boolean {
  return Object.keys(document).some((key) => {
    if (key.length > 'schemaVersion'.length || DECIDING_MEMBERS.includes(key)) return false
    const folded = foldCase(key)
    return DECIDING_MEMBERS.some((member) => foldCase(member) === folded)
  })
}

/** Both ways, as Go folds: U+017F is an S to it, and U+212A a K. */
function foldCase(text: string): string {
  return text.toLowerCase().toUpperCase()
}

/** The one kind that type and members agree on; undefined when they do not. */
function kindOf(document: JsonObject, mediaType: string | undefined): Outline['kind'] | undefined {
  const has = (member: string): boolean => ownMember(document, member) !== undefined
  const shapes: ParsedManifest['kind'][] = []
  if (ownMember(document, 'schemaVersion') === 1) shapes.push('schema1')
  if (has('manifests')) shapes.push('index')
  // `blobs` means something only in a document that says what it is.
  if (has('layers') || has('config') || (mediaType !== undefined && has('blobs'))) shapes.push('image')
  if (shapes.length > 1 || (has('layers') && has('blobs'))) return undefined
  const shape = shapes[0]
  const typed = mediaType === undefined ? undefined : kindOfType(mediaType)
  if (typed !== undefined && shape !== undefined && typed !== shape) return undefined
  return typed ?? shape ?? 'other'
}

function kindOfType(mediaType: string): ParsedManifest['kind'] | undefined {
  if (INDEX_TYPES.includes(mediaType)) return 'index'
  if (IMAGE_TYPES.includes(mediaType) || mediaType === OCI_ARTIFACT) return 'image'
  return SCHEMA1_TYPES.includes(mediaType) ? 'schema1' : undefined
}

function derivedType({ kind, mediaType, document }: Outline): string | undefined {
  if (mediaType !== undefined) return mediaType
  switch (kind) {
    case 'index':
      return OCI_INDEX
    case 'image':
      return OCI_MANIFEST
    case 'schema1':
      return ownMember(document, 'signatures') === undefined ? DOCKER_SCHEMA1 : DOCKER_SCHEMA1_SIGNED
    case 'other':
      return undefined
  }
}

/**
 * BuildKit's cache is an index that names layers and a config. Types we do not know are manifests when they call
 * themselves one, as ORAS's artifact manifest does, and blobs otherwise, which is how containerd asks for them.
 */
function indexEntryRole(mediaType: string): ChildRole {
  const callsItselfOne = mediaType.endsWith('+json') && /\b(?:manifest|index)\b/i.test(mediaType)
  return isManifestType(mediaType) || callsItselfOne ? 'manifest' : 'layer'
}

function parseOptional<T>(
  value: JsonValue | undefined,
  parse: (value: JsonValue) => T | undefined,
): T | 'invalid' | undefined {
  return value === undefined ? undefined : (parse(value) ?? 'invalid')
}
