/**
 * Small registry content, the same for the same seed: image manifests, indexes, artifacts and the blobs under them.
 * Layers are real tar archives and configs name their diff ids, so real clients can unpack them. Digests are computed
 * here with node:crypto, not by the code under test.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { Descriptor, Platform } from '../../src/oci/descriptor.ts'
import { parseDigest, type Digest, type DigestAlgorithm } from '../../src/oci/digest.ts'
import type { Manifest } from '../../src/oci/manifest.ts'
import { DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts'

// ---------------------------------------------------------------------------------------------------------- bytes

/** Bytes by position, in memory or computed. */
export interface Content {
  readonly size: number
  /** Bytes `from` up to but not including `to`; both lie within the size. */
  slice(from: number, to: number): Uint8Array
}

export interface Blob {
  readonly digest: Digest
  readonly mediaType: string
  readonly content: Content
}

export function contentOf(bytes: Uint8Array): Content {
  return { size: bytes.length, slice: (from, to) => bytes.subarray(from, to) }
}

/** All of it at once: for content that fits in memory. */
export function bytesOf(content: Content): Uint8Array {
  return content.slice(0, content.size)
}

/** `size` bytes that look random and follow from `seed`; any part of them costs no more than its own length. */
export function seededContent(seed: string, size: number): Content {
  // AES in counter mode is a key stream that can be entered at any 16-byte block.
  const key = createHash('sha256').update(seed).digest()
  const slice = (from: number, to: number): Uint8Array => {
    const counter = Buffer.alloc(16)
    counter.writeBigUInt64BE(BigInt(Math.floor(from / 16)), 8)
    const skip = from % 16
    return createCipheriv('aes-256-ctr', key, counter)
      .update(Buffer.alloc(skip + to - from))
      .subarray(skip)
  }
  return { size, slice }
}

export function contentDigest(content: Content, algorithm: DigestAlgorithm = 'sha256'): Digest {
  const hash = createHash(algorithm)
  const step = 1024 * 1024
  for (let from = 0; from < content.size; from += step) {
    hash.update(content.slice(from, Math.min(content.size, from + step)))
  }
  const digest = parseDigest(`${algorithm}:${hash.digest('hex')}`)
  if (digest === undefined) throw new Error(`${algorithm} is no registered digest algorithm`)
  return digest
}

export function blobOf(content: Content | Uint8Array | string, options: BlobOptions = {}): Blob {
  const whole = typeof content === 'string' ? Buffer.from(content) : content
  const source = whole instanceof Uint8Array ? contentOf(whole) : whole
  const digest = contentDigest(source, options.algorithm)
  return { digest, mediaType: options.mediaType ?? 'application/octet-stream', content: source }
}

export interface BlobOptions {
  readonly mediaType?: string
  /** Default `sha256`. */
  readonly algorithm?: DigestAlgorithm
}

/** A blob of `size` bytes that is never in memory; making it hashes it once (about 1 s per GiB). */
export function seededBlob(seed: string, size: number, options: BlobOptions = {}): Blob {
  return blobOf(seededContent(seed, size), options)
}

export class SeededRandom {
  readonly #stream: Content
  #position = 0

  constructor(seed: string) {
    this.#stream = seededContent(`random ${seed}`, Number.MAX_SAFE_INTEGER)
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    const word = Buffer.from(this.bytes(4)).readUInt32BE()
    return low + Math.floor((word / 2 ** 32) * (high - low + 1))
  }

  pick<Choice>(choices: readonly [Choice, ...Choice[]]): Choice {
    return choices[this.between(0, choices.length - 1)] ?? choices[0]
  }

  bytes(count: number): Uint8Array {
    const bytes = this.#stream.slice(this.#position, this.#position + count)
    this.#position += count
    return bytes
  }
}

// --------------------------------------------------------------------------------------------- layers and configs

export type Compression = 'gzip' | 'zstd' | 'none'
export type Family = 'oci' | 'docker'

export interface Layer extends Blob {
  /** Digest of the uncompressed archive: what the config lists. */
  readonly diffId: Digest
}

export interface LayerOptions extends BlobOptions {
  /** Default `oci`. */
  readonly family?: Family
  /** Default `gzip`. */
  readonly compression?: Compression
  /** Length of the one file inside. Default 600. */
  readonly bytes?: number
}

export function layerOf(seed: string, options: LayerOptions = {}): Layer {
  const { family = 'oci', compression = 'gzip', bytes = 600 } = options
  const archive = tarOf(`layer-${seed.replaceAll(/\W/g, '-')}`.slice(0, 90), bytesOf(seededContent(seed, bytes)))
  const packed =
    compression === 'gzip' ? gzipSync(archive) : compression === 'zstd' ? zstdCompressSync(archive) : archive
  const mediaType = options.mediaType ?? layerType(family, compression)
  const algorithm = options.algorithm ?? 'sha256'
  return { ...blobOf(packed, { mediaType, algorithm }), diffId: contentDigest(contentOf(archive)) }
}

/** The layer of zero bytes: no archive at all, yet a legal blob. */
export function emptyLayer(): Layer {
  const blob = blobOf('', { mediaType: layerType('oci', 'none') })
  return { ...blob, diffId: blob.digest }
}

function layerType(family: Family, compression: Compression): string {
  if (family === 'oci')
    return `application/vnd.oci.image.layer.v1.tar${compression === 'none' ? '' : `+${compression}`}`
  return `application/vnd.docker.image.rootfs.diff.tar${compression === 'none' ? '' : `.${compression}`}`
}

/** One regular file as a ustar archive (POSIX.1-1988): header, padded body, two empty records. */
function tarOf(name: string, body: Uint8Array): Uint8Array {
  const header = Buffer.alloc(512)
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`
  header.write(name, 0)
  header.write(octal(0o644, 8) + octal(0, 8) + octal(0, 8) + octal(body.length, 12) + octal(0, 12), 100)
  header.write(' '.repeat(8) + '0', 148)
  header.write('ustar\u000000', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return Buffer.concat([header, body, Buffer.alloc(((512 - (body.length % 512)) % 512) + 1024)])
}

// ------------------------------------------------------------------------------------------------------ manifests

/** How the JSON is written. Its meaning is the same in all; its bytes, and so its digest, are not. */
export type Spelling = 'compact' | 'indented' | 'tabs-crlf' | 'reversed-keys' | 'escaped'

type Json = string | number | boolean | null | readonly Json[] | JsonObject
interface JsonObject {
  readonly [key: string]: Json | undefined
}

export interface ManifestOptions {
  readonly family?: Family
  /** Default `sha256`. */
  readonly algorithm?: DigestAlgorithm
  /** False leaves `mediaType` out of the JSON, which OCI allows. Default true. */
  readonly namesItsType?: boolean
  /** Default `compact`. */
  readonly spelling?: Spelling
  readonly artifactType?: string
  readonly subject?: Manifest
  readonly annotations?: Readonly<Record<string, string>>
}

export function descriptorOf(target: Manifest | Blob): Descriptor {
  const size = 'bytes' in target ? target.bytes.length : target.content.size
  return { mediaType: target.mediaType, digest: target.digest, size }
}

/** Any JSON as a manifest of `mediaType`: also what no builder here would write. */
export function manifestOf(json: object, mediaType: string, options: ManifestOptions = {}): Manifest {
  const bytes = Buffer.from(spell(toJson(json), options.spelling ?? 'compact'))
  return { digest: contentDigest(contentOf(bytes), options.algorithm), mediaType, bytes }
}

export function imageManifest(
  config: Blob,
  layers: readonly (Blob | JsonDescriptor)[],
  options: ManifestOptions = {},
): Manifest {
  const mediaType = options.family === 'docker' ? DOCKER_MANIFEST : OCI_MANIFEST
  const layerList = layers.map((layer) => ('content' in layer ? descriptorOf(layer) : layer))
  const body = { config: descriptorOf(config), layers: layerList }
  return manifestOf(manifestJson(mediaType, body, options), mediaType, options)
}

export function indexOf(entries: readonly JsonDescriptor[], options: ManifestOptions = {}): Manifest {
  const mediaType = options.family === 'docker' ? DOCKER_LIST : OCI_INDEX
  return manifestOf(manifestJson(mediaType, { manifests: entries }, options), mediaType, options)
}

/** A descriptor with any of the fields we do not model, such as `urls`. */
export interface JsonDescriptor extends Descriptor {
  readonly urls?: readonly string[]
}

function manifestJson(mediaType: string, body: object, options: ManifestOptions): object {
  return {
    schemaVersion: 2,
    mediaType: (options.namesItsType ?? true) ? mediaType : undefined,
    artifactType: options.artifactType,
    ...body,
    subject: options.subject && descriptorOf(options.subject),
    annotations: options.annotations,
  }
}

function toJson(value: unknown): Json {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return value
  if (Array.isArray(value)) return value.map(toJson)
  if (typeof value !== 'object') throw new TypeError(`a manifest cannot hold ${typeof value}`)
  const held = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(held.map(([key, member]) => [key, toJson(member)]))
}

function spell(json: Json, spelling: Spelling): string {
  switch (spelling) {
    case 'compact':
      return JSON.stringify(json)
    case 'indented':
      return `${JSON.stringify(json, null, 3)}\n`
    case 'tabs-crlf':
      return `\r\n${JSON.stringify(json, null, '\t').replaceAll('\n', '\r\n')} \r\n\r\n`
    case 'reversed-keys':
      return JSON.stringify(reverseKeys(json), null, 1)
    case 'escaped':
      return JSON.stringify(json)
        .replaceAll('/', '\\/')
        .replaceAll(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
  }
}

function reverseKeys(json: Json): Json {
  if (json === null || typeof json !== 'object') return json
  if (isList(json)) return json.map(reverseKeys)
  const members = Object.entries(json).reverse()
  return Object.fromEntries(
    members.map(([key, member]) => [key, member === undefined ? undefined : reverseKeys(member)]),
  )
}

function isList(json: readonly Json[] | JsonObject): json is readonly Json[] {
  return Array.isArray(json)
}

// --------------------------------------------------------------------------------------------------------- images

/** What one tag of one repository reaches, ready for `ScriptedRegistry.load`. */
export interface TinyImage {
  readonly shape: string
  readonly repository: string
  readonly tag: string
  /** What the tag points to; also in `manifests`. */
  readonly root: Manifest
  /** Children before parents; referrers last. */
  readonly manifests: readonly Manifest[]
  readonly blobs: readonly Blob[]
}

export interface TinyImageOptions extends ManifestOptions {
  readonly seed: string
  /** Default `library/tiny`. */
  readonly repository?: string
  /** Default `latest`. */
  readonly tag?: string
  /** Default 2. */
  readonly layers?: number
  /** Default 600 per layer, before compression. */
  readonly layerBytes?: number
  readonly compression?: Compression
  /** Digest algorithm of the blobs. Default `sha256`. */
  readonly blobAlgorithm?: DigestAlgorithm
  /** Default linux/amd64. */
  readonly platform?: Platform
  /** Made elsewhere and put under the generated ones: shared bases, generated giants, the empty layer. */
  readonly baseLayers?: readonly (Layer | Blob)[]
}

/** One image: config, layers and a manifest. */
export function tinyImage(options: TinyImageOptions): TinyImage {
  const { seed, family = 'oci', platform = LINUX_AMD64, layers = 2, compression = 'gzip' } = options
  const algorithm = options.blobAlgorithm ?? 'sha256'
  const made = Array.from({ length: layers }, (_, number) =>
    layerOf(`${seed} layer ${number}`, { family, compression, algorithm, bytes: options.layerBytes ?? 600 }),
  )
  const all = [...(options.baseLayers ?? []), ...made]
  const diffIds = all.map((layer) => ('diffId' in layer ? layer.diffId : layer.digest))
  const history = diffIds.map((_, number) => ({ created: CREATED, created_by: `seed ${seed}, layer ${number}` }))
  const configJson = {
    created: CREATED,
    ...platform,
    config: {},
    rootfs: { type: 'layers', diff_ids: diffIds },
    history,
  }
  const config = blobOf(JSON.stringify(configJson), { mediaType: CONFIG_TYPES[family], algorithm })
  const root = imageManifest(config, all, options)
  return assemble('image', options, root, [root], [config, ...all])
}

export interface TinyIndexOptions extends TinyImageOptions {
  /** Default linux/amd64 and linux/arm64. */
  readonly platforms?: readonly Platform[]
}

/** An index over one image per platform. */
export function tinyIndex(options: TinyIndexOptions): TinyImage {
  // What is said of the index is not said of its children.
  const { annotations: _annotations, subject: _subject, artifactType: _artifactType, ...plain } = options
  const platforms = options.platforms ?? [LINUX_AMD64, LINUX_ARM64]
  const children = platforms.map((platform) =>
    tinyImage({ ...plain, platform, seed: `${options.seed} ${platform.os}/${platform.architecture}` }),
  )
  const entries = children.map((child, number) => {
    const platform = platforms[number]
    return { ...descriptorOf(child.root), ...(platform === undefined ? {} : { platform }) }
  })
  const root = indexOf(entries, options)
  const manifests = [...children.flatMap((child) => child.manifests), root]
  return assemble(
    'index',
    options,
    root,
    manifests,
    children.flatMap((child) => child.blobs),
  )
}

export interface TinyArtifactOptions extends ManifestOptions {
  readonly seed: string
  readonly repository?: string
  readonly tag?: string
  /** Length of its one layer. Default 200. */
  readonly bytes?: number
}

/** An artifact as image-spec 1.1 advises: `artifactType`, the empty config `{}`, one opaque layer. */
export function tinyArtifact(options: TinyArtifactOptions): TinyImage {
  const { seed, artifactType = 'application/vnd.example.sbom', bytes = 200 } = options
  const config = blobOf('{}', { mediaType: 'application/vnd.oci.empty.v1+json' })
  const layer = seededBlob(`${seed} artifact`, bytes, { mediaType: `${artifactType}.payload` })
  const root = imageManifest(config, [layer], { ...options, artifactType })
  return assemble('artifact', options, root, [root], [config, layer])
}

/** `image` with `referrers` in its repository, as signatures and SBOMs are pushed after it. */
export function withReferrers(image: TinyImage, referrers: readonly TinyImage[]): TinyImage {
  return {
    ...image,
    manifests: [...image.manifests, ...referrers.flatMap((referrer) => referrer.manifests)],
    blobs: distinct([...image.blobs, ...referrers.flatMap((referrer) => referrer.blobs)]),
  }
}

function assemble(
  shape: string,
  place: { readonly repository?: string; readonly tag?: string },
  root: Manifest,
  manifests: readonly Manifest[],
  blobs: readonly Blob[],
): TinyImage {
  const { repository = 'library/tiny', tag = 'latest' } = place
  return { shape, repository, tag, root, manifests: distinct(manifests), blobs: distinct(blobs) }
}

function distinct<Addressed extends { readonly digest: Digest }>(list: readonly Addressed[]): readonly Addressed[] {
  return [...new Map(list.map((each) => [each.digest, each])).values()]
}

const CREATED = '2026-01-01T00:00:00Z'
const LINUX_AMD64: Platform = { os: 'linux', architecture: 'amd64' }
const LINUX_ARM64: Platform = { os: 'linux', architecture: 'arm64', variant: 'v8' }
const CONFIG_TYPES: Readonly<Record<Family, string>> = {
  oci: 'application/vnd.oci.image.config.v1+json',
  docker: 'application/vnd.docker.container.image.v1+json',
}

// ----------------------------------------------------------------------------------------------------- many shapes

interface Place {
  readonly seed: string
  readonly foreignUrl: string
  readonly repository: string
  readonly tag: string
}

type Shape = (place: Place, random: SeededRandom) => TinyImage

/** Every shape a gateway meets in the wild, by the name that a failing test prints. */
const SHAPES: Readonly<Record<string, Shape>> = {
  'oci gzip': (place, random) => tinyImage({ ...place, layers: random.between(1, 5) }),
  'docker gzip': (place, random) => tinyImage({ ...place, family: 'docker', layers: random.between(1, 5) }),
  'oci zstd': (place) => tinyImage({ ...place, compression: 'zstd' }),
  'docker uncompressed': (place) => tinyImage({ ...place, family: 'docker', compression: 'none' }),
  'manifest without mediaType': (place) => tinyImage({ ...place, namesItsType: false }),
  'index without mediaType': (place) => tinyIndex({ ...place, namesItsType: false }),
  'oci index': (place) => tinyIndex(place),
  'docker list': (place) => tinyIndex({ ...place, family: 'docker' }),
  'nested index': nestedIndex,
  'sha512 throughout': (place) => tinyIndex({ ...place, algorithm: 'sha512', blobAlgorithm: 'sha512' }),
  'sha512 blobs': (place) => tinyImage({ ...place, blobAlgorithm: 'sha512' }),
  'empty layer': (place) => tinyImage({ ...place, baseLayers: [emptyLayer()] }),
  '100 layers': (place) => tinyImage({ ...place, layers: 100, layerBytes: 40 }),
  'same layer twice': (place) => {
    const base = layerOf(`${place.seed} twin`)
    return tinyImage({ ...place, baseLayers: [base, base] })
  },
  'shared base': (place) => tinyImage({ ...place, baseLayers: [layerOf('the base every image shares')] }),
  artifact: (place) => tinyArtifact(place),
  'artifact manifest, no config': withdrawnArtifact,
  referrers: (place) => {
    const image = tinyIndex(place)
    const signature = { artifactType: 'application/vnd.example.signature', annotations: { 'org.example.by': 'Zoë' } }
    return withReferrers(image, [
      tinyArtifact({ seed: `${place.seed} sbom`, subject: image.root }),
      tinyArtifact({ seed: `${place.seed} signature`, subject: image.root, ...signature }),
    ])
  },
  'subject that is not there': (place) => tinyArtifact({ ...place, subject: tinyImage({ seed: 'absent' }).root }),
  'foreign layer': foreignLayer,
  'attested index': attestedIndex,
  'build cache': buildCache,
  indented: (place) => tinyIndex({ ...place, spelling: 'indented' }),
  'tabs and CRLF': (place) => tinyImage({ ...place, spelling: 'tabs-crlf', annotations: UTF8 }),
  'reversed keys': (place) => tinyIndex({ ...place, spelling: 'reversed-keys', annotations: UTF8 }),
  'escaped JSON': (place) => tinyImage({ ...place, spelling: 'escaped', annotations: UTF8 }),
  'utf-8 annotations': (place) => tinyImage({ ...place, annotations: UTF8 }),
  'windows platforms': (place) =>
    tinyIndex({ ...place, platforms: [{ os: 'windows', architecture: 'amd64' }, LINUX_AMD64] }),
  'repository named like the API': (place) =>
    tinyImage({ ...place, repository: `${place.repository}/manifests/tags/list/blobs` }),
}

const UTF8 = {
  'org.opencontainers.image.title': 'Entrepôt 倉庫 🚢',
  'org.opencontainers.image.vendor': 'e\u0301 (decomposed), \u2028 (line separator)',
}

export const shapeNames: readonly string[] = Object.keys(SHAPES)

export interface GenerateOptions {
  readonly seed: string
  readonly count: number
  /**
   * What the `urls` of foreign layers say: a server of the test that must see no request. Default a loopback port where
   * nobody listens, because real clients do follow it.
   */
  readonly foreignUrl?: string
}

/** `count` images, shape by shape and round again, each in a place of its own. The first round holds every shape. */
export function generateImages(options: GenerateOptions): readonly TinyImage[] {
  const { seed, count, foreignUrl = 'http://127.0.0.1:1/layer.tar.gz' } = options
  const shapes = Object.entries(SHAPES)
  const random = new SeededRandom(seed)
  return Array.from({ length: count }, (_, number) => {
    const [name, shape] = shapes[number % shapes.length] ?? ['none', (place: Place) => tinyImage(place)]
    const repository = `${random.pick(['library', 'acme', 'deep/er/path', 'a-b/c__d'])}/r${number}`
    const tag = random.pick(['latest', `v${number}.0`, '_', `UPPER-${number}`, 'x'.repeat(128)])
    return { ...shape({ seed: `${seed}/${number}`, repository, tag, foreignUrl }, random), shape: name }
  })
}

function nestedIndex(place: Place): TinyImage {
  const inner = [tinyIndex({ ...place, seed: `${place.seed} a` }), tinyIndex({ ...place, seed: `${place.seed} b` })]
  const leaf = tinyImage({ ...place, seed: `${place.seed} leaf` })
  const parts = [...inner, leaf]
  const root = indexOf(parts.map((part) => descriptorOf(part.root)))
  const manifests = [...parts.flatMap((part) => part.manifests), root]
  return assemble(
    'index',
    place,
    root,
    manifests,
    parts.flatMap((part) => part.blobs),
  )
}

/** A layer that the registry does not hold: clients fetch it from `urls`, a gateway must not. */
function foreignLayer(place: Place): TinyImage {
  const own = tinyImage({ ...place, family: 'docker' })
  const absent = layerOf(`${place.seed} foreign`, { family: 'docker' })
  const foreign = {
    ...descriptorOf(absent),
    mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    urls: [place.foreignUrl],
  }
  const [config, ...layers] = own.blobs
  if (config === undefined) throw new Error('an image has a config')
  const root = imageManifest(config, [foreign, ...layers], { family: 'docker' })
  return assemble('image', place, root, [root], own.blobs)
}

/** What BuildKit pushes: an attestation manifest beside the image, under the platform unknown/unknown. */
function attestedIndex(place: Place): TinyImage {
  const image = tinyImage(place)
  const statement = blobOf(`{"_type":"https://in-toto.io/Statement/v0.1","seed":"${place.seed}"}`, {
    mediaType: 'application/vnd.in-toto+json',
  })
  const config = blobOf('{"architecture":"unknown","os":"unknown"}', { mediaType: CONFIG_TYPES.oci })
  const attestation = imageManifest(config, [statement])
  const root = indexOf([
    { ...descriptorOf(image.root), platform: LINUX_AMD64 },
    {
      ...descriptorOf(attestation),
      annotations: {
        'vnd.docker.reference.digest': image.root.digest,
        'vnd.docker.reference.type': 'attestation-manifest',
      },
      platform: { os: 'unknown', architecture: 'unknown' },
    },
  ])
  return assemble('index', place, root, [image.root, attestation, root], [...image.blobs, config, statement])
}

/** BuildKit's registry cache: an index whose entries are blobs. */
function buildCache(place: Place): TinyImage {
  const layers = [layerOf(`${place.seed} 0`), layerOf(`${place.seed} 1`)]
  const config = blobOf(`{"layers":[{"blob":"${layers[0]?.digest}"}],"records":[]}`, {
    mediaType: 'application/vnd.buildkit.cacheconfig.v0',
  })
  const root = indexOf([...layers, config].map(descriptorOf))
  return assemble('index', place, root, [root], [...layers, config])
}

/** The artifact manifest that was withdrawn before image-spec 1.1: `blobs`, no config, no schemaVersion. */
function withdrawnArtifact(place: Place): TinyImage {
  const payload = seededBlob(`${place.seed} payload`, 150, { mediaType: 'application/vnd.example.data' })
  const json = { mediaType: OCI_ARTIFACT, artifactType: 'application/vnd.example.old', blobs: [descriptorOf(payload)] }
  const root = manifestOf(json, OCI_ARTIFACT)
  return assemble('artifact', place, root, [root], [payload])
}
