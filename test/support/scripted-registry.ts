/**
 * A registry to pull from, on a free port: the read side of distribution-spec 1.1 over content held in memory or
 * computed, with authentication, an optional CDN for its blobs, and every fault of `fault-script.ts`.
 */
import { randomBytes } from 'node:crypto'
import picomatch from 'picomatch'
import type { Clock } from '../../src/async/clock.ts'
import { systemClock } from '../../src/async/clock.ts'
import type { Digest } from '../../src/oci/digest.ts'
import type { Manifest } from '../../src/oci/manifest.ts'
import { OCI_INDEX } from '../../src/oci/media-types.ts'
import {
  matches,
  ScriptedServer,
  type Headers,
  type Match,
  type Reply,
  type RequestRecord,
  type ServerOptions,
} from './fault-script.ts'
import { parseBasic, type Account, type BearerAuth } from './scripted-token-server.ts'
import { contentOf, type Blob, type Content, type TinyImage } from './tiny-image.ts'

// -------------------------------------------------------------------------------------------------------- options

export interface BasicAuth {
  readonly scheme: 'basic'
  /** Default `Scripted registry`. */
  readonly realm?: string
  readonly accounts: readonly Account[]
}

export interface RegistryOptions extends ServerOptions {
  /** `tokenServer.auth()` for Bearer. Default none: everything is open. */
  readonly auth?: BasicAuth | BearerAuth
  /**
   * Where a request without valid credentials is told how to get some. `content`: the ping is always 200 (registry.k8s.io);
   * `ping`: content says 401 and nothing else (gcr.io). Default `everywhere`.
   */
  readonly challengeOn?: 'everywhere' | 'content' | 'ping'
  /** The WWW-Authenticate values in place of the right one, to be wrong or unusual. */
  readonly challenges?: (repository: string | undefined) => readonly string[]
  /** Public repositories need a token too, if only an anonymous one: Docker Hub, GHCR. Default false. */
  readonly publicNeedsToken?: boolean
  /** To valid credentials that do not cover the repository. Default 401 for Bearer, 403 for Basic. */
  readonly deniedStatus?: 401 | 403 | 404
  /** 404 to a client whose Accept does not name the stored type, as GHCR. Default false. */
  readonly isStrictOnAccept?: boolean
  readonly referrers?: ReferrersOptions | 'off'
  /** At most so many tags or repositories in a page, whatever `n` says. Default unlimited. */
  readonly maxPage?: number
  /** False answers 404. Default true. */
  readonly hasCatalog?: boolean
  /** Blobs are redirected to a second server. Default: served here. */
  readonly cdn?: CdnOptions
  /** On every answer: `RateLimit-Remaining`, `Set-Cookie`, `Warning` … */
  readonly headers?: (request: RequestRecord) => Headers
  readonly clock?: Clock
}

export interface ReferrersOptions {
  /** Descriptors in a page. Default unlimited. */
  readonly pageSize?: number
  /** False ignores `artifactType`. Default true. */
  readonly filters?: boolean
}

export interface CdnOptions extends ServerOptions {
  /** Default 307. */
  readonly redirectStatus?: 301 | 302 | 303 | 307 | 308
  /** A signature serves one GET. Default false. */
  readonly isSingleUse?: boolean
  /** How long a signature is valid. Default 600 000. */
  readonly lifetimeMs?: number
  /** 400 to a request that carries Authorization besides the signature, as S3. Default false: it is only recorded. */
  readonly refusesAuthorization?: boolean
}

// --------------------------------------------------------------------------------------------------- repositories

/** What one repository holds; a digest that another holds is not found here. */
export class ScriptedRepository {
  readonly name: string
  readonly tags = new Map<string, Digest>()
  readonly manifests = new Map<string, Manifest>()
  readonly blobs = new Map<string, Content>()
  isPrivate: boolean

  constructor(name: string, isPrivate: boolean) {
    this.name = name
    this.isPrivate = isPrivate
  }

  add(...content: readonly (Manifest | Blob)[]): this {
    for (const each of content) {
      if ('bytes' in each) this.manifests.set(each.digest, each)
      else this.blobs.set(each.digest, each.content)
    }
    return this
  }

  /** Points a tag at a manifest, which is added when it is not here yet. */
  tag(name: string, manifest: Manifest): this {
    this.tags.set(name, manifest.digest)
    return this.add(manifest)
  }

  manifest(reference: string): Manifest | undefined {
    return this.manifests.get(this.tags.get(reference) ?? reference)
  }
}

// ------------------------------------------------------------------------------------------------------- registry

export class ScriptedRegistry extends ScriptedServer {
  /** The server that blobs are redirected to: its `requests`, its scripts. */
  readonly cdn: ScriptedCdn | undefined
  readonly #options: RegistryOptions
  readonly #clock: Clock
  readonly #repositories = new Map<string, ScriptedRepository>()

  constructor(options: RegistryOptions = {}) {
    super(options)
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.cdn = options.cdn && new ScriptedCdn(options.cdn, this.#clock)
  }

  override async listen(): Promise<void> {
    await super.listen()
    await this.cdn?.listen()
  }

  /** Closes the CDN as well. */
  override async close(): Promise<void> {
    await super.close()
    await this.cdn?.close()
  }

  /** The repository of that name, made at first mention; private where there is authentication. */
  repository(name: string): ScriptedRepository {
    const held = this.#repositories.get(name)
    if (held !== undefined) return held
    const made = new ScriptedRepository(name, this.#options.auth !== undefined)
    this.#repositories.set(name, made)
    return made
  }

  deleteRepository(name: string): void {
    this.#repositories.delete(name)
  }

  /** Everything of these images, each under its repository and tag. */
  load(...images: readonly TinyImage[]): this {
    for (const image of images) {
      const repository = this.repository(image.repository)
      repository.add(...image.manifests, ...image.blobs).tag(image.tag, image.root)
    }
    return this
  }

  /** Answers that carried bytes of this blob, from here or from the CDN, in order of arrival. */
  transfers(digest: Digest): readonly RequestRecord[] {
    const wanted: Match = {
      method: 'GET',
      reference: digest,
      where: ({ kind, status }) => (kind === 'blob' || kind === 'cdn') && (status === 200 || status === 206),
    }
    const all = [...this.requests, ...(this.cdn?.requests ?? [])]
    return all.filter((request) => matches(wanted, request)).toSorted((one, other) => one.at - other.at)
  }

  /** The parts of the blob that were sent, `to` excluded, in order of offset; a test reads gaps and overlaps off it. */
  segments(digest: Digest): readonly { readonly from: number; readonly to: number }[] {
    return this.transfers(digest)
      .map(({ offset, bytesSent }) => ({ from: offset, to: offset + bytesSent }))
      .toSorted((one, other) => one.from - other.from)
  }

  /** How many bytes of the blob were sent more than once. */
  overlap(digest: Digest): number {
    let reached = 0
    let twice = 0
    for (const { from, to } of this.segments(digest)) {
      twice += Math.max(0, Math.min(reached, to) - from)
      reached = Math.max(reached, to)
    }
    return twice
  }

  /** Bytes of the blob that were sent, in all. `trafficOf(blob.digest) / blob.content.size` is 1 at best. */
  trafficOf(digest: Digest): number {
    return this.transfers(digest).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
  }

  protected override classify(path: string): Pick<RequestRecord, 'kind' | 'repository' | 'reference'> {
    if (path === '/v2/' || path === '/v2') return { kind: 'ping', repository: undefined, reference: undefined }
    if (path === '/v2/_catalog') return { kind: 'catalog', repository: undefined, reference: undefined }
    const tags = /^\/v2\/(.+)\/tags\/list$/.exec(path)
    if (tags !== null) return { kind: 'tags', repository: tags[1], reference: undefined }
    // Greedy, so the last such word counts: a repository may be named `a/manifests/b`.
    const [, repository, noun = '', reference] = /^\/v2\/(.+)\/(manifests|blobs|referrers)\/([^/]+)$/.exec(path) ?? []
    const kind = NOUNS[noun] ?? 'other'
    return { kind, repository, reference: reference?.replaceAll(/%3a/gi, ':') }
  }

  protected override answer(request: RequestRecord, range: string | undefined): Reply {
    const reply = this.#answer(request, range)
    const extra = this.#options.headers?.(request) ?? {}
    return { ...reply, headers: { 'Docker-Distribution-Api-Version': 'registry/2.0', ...reply.headers, ...extra } }
  }

  #answer(request: RequestRecord, range: string | undefined): Reply {
    const refusal = this.#authorise(request)
    if (refusal !== undefined) return refusal
    if (request.method !== 'GET' && request.method !== 'HEAD') return errorReply(405, 'UNSUPPORTED')
    switch (request.kind) {
      case 'ping':
        return jsonReply({})
      case 'catalog':
        return this.#catalog(request)
      case 'other':
        return { status: 404, headers: { 'Content-Type': 'text/plain' }, body: contentOf(Buffer.from('not found\n')) }
      default:
        break
    }
    const repository = this.#repositories.get(request.repository ?? '')
    if (repository === undefined) return errorReply(404, 'NAME_UNKNOWN')
    if (request.kind === 'tags') return this.#tags(request, repository)
    const reference = request.reference ?? ''
    const isDigest = reference.includes(':')
    if ((isDigest || request.kind !== 'manifest') && !DIGEST.test(reference)) return errorReply(400, 'DIGEST_INVALID')
    if (request.kind === 'manifest') return this.#manifest(request, repository, reference)
    if (request.kind === 'referrers') return this.#referrers(request, repository, reference)
    return this.#blob(request, repository, range)
  }

  // ---- who may

  /** What to say to those who may not; undefined for those who may. */
  #authorise(request: RequestRecord): Reply | undefined {
    const { auth, challengeOn = 'everywhere' } = this.#options
    if (auth === undefined) return undefined
    const isPing = request.kind === 'ping'
    if (isPing && challengeOn === 'content') return undefined
    if (!isPing && this.#isOpen(request.repository)) return undefined
    const pulls = auth.scheme === 'basic' ? basicPulls(auth, request) : this.#bearerPulls(auth, request)
    if (pulls === undefined) return this.#unauthorised(request, isPing || challengeOn !== 'ping')
    if (request.repository === undefined || pulls(request.repository)) return undefined
    const status = this.#options.deniedStatus ?? (auth.scheme === 'basic' ? 403 : 401)
    if (status === 401) return this.#unauthorised(request, challengeOn !== 'ping')
    return status === 403 ? errorReply(403, 'DENIED') : errorReply(404, 'NAME_UNKNOWN')
  }

  #isOpen(name: string | undefined): boolean {
    const repository = this.#repositories.get(name ?? '')
    return repository !== undefined && !repository.isPrivate && !this.#options.publicNeedsToken
  }

  #bearerPulls({ tokens }: BearerAuth, request: RequestRecord): ((repository: string) => boolean) | undefined {
    const token = bearerToken(request)
    const grant = token === undefined ? undefined : tokens.get(token)
    if (grant === undefined || grant.expiresAt <= this.#clock.now()) return undefined
    return (repository) => grant.repositories.has(repository)
  }

  #unauthorised(request: RequestRecord, isChallenged: boolean): Reply {
    const challenges = this.#options.challenges?.(request.repository) ?? this.#challenges(request)
    return errorReply(401, 'UNAUTHORIZED', isChallenged ? { 'WWW-Authenticate': challenges } : {})
  }

  #challenges(request: RequestRecord): readonly string[] {
    const { auth } = this.#options
    if (auth?.scheme !== 'bearer') return [`Basic realm="${auth?.realm ?? 'Scripted registry'}"`]
    const { repository } = request
    const scope = repository === undefined ? '' : `,scope="repository:${repository}:pull"`
    const token = bearerToken(request)
    const known = token !== undefined && (auth.tokens.get(token)?.expiresAt ?? 0) > this.#clock.now()
    const error = token === undefined ? '' : `,error="${known ? 'insufficient_scope' : 'invalid_token'}"`
    return [`Bearer realm="${auth.realm}",service="${auth.service}"${scope}${error}`]
  }

  // ---- what there is

  #manifest(request: RequestRecord, repository: ScriptedRepository, reference: string): Reply {
    const manifest = repository.manifest(reference)
    if (manifest === undefined) return errorReply(404, 'MANIFEST_UNKNOWN')
    if (this.#options.isStrictOnAccept && !accepts(request.headers['accept'], manifest.mediaType))
      return errorReply(404, 'MANIFEST_UNKNOWN')
    const headers = { 'Docker-Content-Digest': manifest.digest, ETag: `"${manifest.digest}"` }
    if (request.headers['if-none-match'] === headers.ETag) return { status: 304, headers, body: NOTHING }
    return { status: 200, headers: { 'Content-Type': manifest.mediaType, ...headers }, body: contentOf(manifest.bytes) }
  }

  #blob(request: RequestRecord, repository: ScriptedRepository, range: string | undefined): Reply {
    const digest = request.reference ?? ''
    const content = repository.blobs.get(digest)
    if (content === undefined) return errorReply(404, 'BLOB_UNKNOWN')
    if (this.cdn === undefined) return blobReply(digest, content, request, range)
    const headers = { Location: this.cdn.sign(digest, content), 'Docker-Content-Digest': digest }
    return { status: this.#options.cdn?.redirectStatus ?? 307, headers, body: NOTHING }
  }

  #tags(request: RequestRecord, repository: ScriptedRepository): Reply {
    const page = this.#page(request, [...repository.tags.keys()])
    return page === undefined ? BAD_PAGE : jsonReply({ name: repository.name, tags: page.names }, page.headers)
  }

  #catalog(request: RequestRecord): Reply {
    if (this.#options.hasCatalog === false) return errorReply(404, 'UNSUPPORTED')
    const page = this.#page(request, [...this.#repositories.keys()])
    return page === undefined ? BAD_PAGE : jsonReply({ repositories: page.names }, page.headers)
  }

  /** `n` names after `last`, in order, and the Link to the rest (distribution-spec, "Listing tags"); undefined for a bad `n`. */
  #page({ path, query }: RequestRecord, names: readonly string[]): Page | undefined {
    const asked = query.get('n') ?? undefined
    if (asked !== undefined && !/^\d+$/.test(asked)) return undefined
    const last = query.get('last')
    const rest = names.toSorted(byCodeUnit).filter((name) => last === null || name > last)
    const n = Math.min(Number(asked ?? Infinity), this.#options.maxPage ?? Infinity)
    const page = rest.slice(0, n)
    const end = page.at(-1)
    if (end === undefined || page.length === rest.length) return { names: page, headers: {} }
    const next = new URLSearchParams({ last: end, n: String(n) })
    return { names: page, headers: { Link: `<${path}?${next.toString()}>; rel="next"` } }
  }

  #referrers({ path, query }: RequestRecord, repository: ScriptedRepository, subject: string): Reply {
    const options = this.#options.referrers ?? {}
    if (options === 'off') return { status: 404, headers: { 'Content-Type': 'text/plain' }, body: NOTHING }
    const wanted = options.filters === false ? null : query.get('artifactType')
    const all = [...repository.manifests.values()].flatMap((manifest) => referrerDescriptor(manifest, subject))
    const found = all.filter(({ artifactType }) => wanted === null || artifactType === wanted)
    const from = Number(query.get('page') ?? 0)
    const to = from + (options.pageSize ?? Infinity)
    const next = new URLSearchParams({ ...(wanted === null ? {} : { artifactType: wanted }), page: String(to) })
    const link: Headers = to < found.length ? { Link: `<${path}?${next.toString()}>; rel="next"` } : {}
    const filtered: Headers = wanted === null ? {} : { 'OCI-Filters-Applied': 'artifactType' }
    const body = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: found.slice(from, to) }
    return jsonReply(body, { 'Content-Type': OCI_INDEX, ...link, ...filtered })
  }
}

/** Starts one on a free port, with its CDN on another; disposing closes both. */
export async function startScriptedRegistry(options: RegistryOptions = {}): Promise<ScriptedRegistry> {
  const registry = new ScriptedRegistry(options)
  await registry.listen()
  return registry
}

// ------------------------------------------------------------------------------------------------------------ CDN

interface Signature {
  readonly digest: string
  readonly content: Content
  readonly expiresAt: number
  uses: number
}

/** Serves a blob to whoever holds a valid signature, and to nobody else. Its requests are of kind `cdn`. */
export class ScriptedCdn extends ScriptedServer {
  readonly #options: CdnOptions
  readonly #clock: Clock
  readonly #signatures = new Map<string, Signature>()

  constructor(options: CdnOptions, clock: Clock) {
    super(options)
    this.#options = options
    this.#clock = clock
  }

  /** A URL for this blob. */
  sign(digest: string, content: Content): string {
    const signature = randomBytes(16).toString('hex')
    const expiresAt = this.#clock.now() + (this.#options.lifetimeMs ?? 600_000)
    this.#signatures.set(signature, { digest, content, expiresAt, uses: 0 })
    return `${this.url}/blobs/${digest}?X-Expires=${expiresAt}&X-Signature=${signature}`
  }

  /** Makes every signature given so far invalid. */
  expireAll(): void {
    this.#signatures.clear()
  }

  protected override classify(path: string): Pick<RequestRecord, 'kind' | 'repository' | 'reference'> {
    return { kind: 'cdn', repository: undefined, reference: /^\/blobs\/(.+)$/.exec(path)?.[1] }
  }

  protected override answer(request: RequestRecord, range: string | undefined): Reply {
    if (this.#options.refusesAuthorization && request.headers['authorization'] !== undefined)
      return xmlReply(400, 'InvalidArgument', 'Only one auth mechanism allowed')
    const signature = this.#signatures.get(request.query.get('X-Signature') ?? '')
    if (signature === undefined || signature.digest !== request.reference)
      return xmlReply(403, 'SignatureDoesNotMatch', 'The signature does not match')
    const isSpent = this.#options.isSingleUse === true && signature.uses > 0
    if (isSpent || signature.expiresAt <= this.#clock.now()) return xmlReply(403, 'AccessDenied', 'Request has expired')
    if (request.method === 'GET') signature.uses++
    return blobReply(signature.digest, signature.content, request, range)
  }
}

// -------------------------------------------------------------------------------------------------------- answers

interface Page {
  readonly names: readonly string[]
  readonly headers: Headers
}

const NOTHING = contentOf(new Uint8Array())
const BAD_PAGE = errorReply(400, 'PAGINATION_NUMBER_INVALID')
const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/
const NOUNS: Readonly<Record<string, string>> = { manifests: 'manifest', blobs: 'blob', referrers: 'referrers' }

/** A blob or one range of it (RFC 9110 section 14.2). Several ranges at once are answered with the whole, as allowed. */
function blobReply(digest: string, content: Content, request: RequestRecord, range: string | undefined): Reply {
  const etag = `"${digest}"`
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Docker-Content-Digest': digest,
    'Accept-Ranges': 'bytes',
    ETag: etag,
  }
  const ifRange = request.headers['if-range']
  const isRanged = request.method === 'GET' && (ifRange === undefined || ifRange === etag)
  const [, first = '', last = ''] = (isRanged && /^bytes=(\d*)-(\d*)$/.exec(range ?? '')) || []
  if (first === '' && last === '') return { status: 200, headers, body: content }
  const { size } = content
  const from = first === '' ? Math.max(0, size - Number(last)) : Number(first)
  const to = first === '' || last === '' ? size : Math.min(size, Number(last) + 1)
  if (from >= size || from >= to) return errorReply(416, 'RANGE_INVALID', { 'Content-Range': `bytes */${size}` })
  const body = { size: to - from, slice: (low: number, high: number) => content.slice(from + low, from + high) }
  const ranged = { ...headers, 'Content-Range': `bytes ${from}-${to - 1}/${size}` }
  return { status: 206, headers: ranged, body, offset: from, wholeSize: size }
}

function jsonReply(body: object, headers: Headers = {}): Reply {
  const bytes = Buffer.from(JSON.stringify(body))
  return { status: 200, headers: { 'Content-Type': 'application/json', ...headers }, body: contentOf(bytes) }
}

function errorReply(status: number, code: string, headers: Headers = {}): Reply {
  const message = code.toLowerCase().replaceAll('_', ' ')
  return { ...jsonReply({ errors: [{ code, message }] }, headers), status }
}

function xmlReply(status: number, code: string, message: string): Reply {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`
  return { status, headers: { 'Content-Type': 'application/xml' }, body: contentOf(Buffer.from(body)) }
}

function basicPulls({ accounts }: BasicAuth, request: RequestRecord): ((repository: string) => boolean) | undefined {
  const basic = parseBasic(request.headers['authorization'])
  const account = accounts.find(({ name, password }) => name === basic?.name && password === basic.password)
  return account && picomatch([...account.pulls])
}

function bearerToken(request: RequestRecord): string | undefined {
  return /^bearer +(\S+)$/i.exec(request.headers['authorization'] ?? '')?.[1]
}

function accepts(header: string | undefined, mediaType: string): boolean {
  const types = (header ?? '').split(',').map((each) => each.split(';')[0]?.trim())
  return types.includes(mediaType)
}

interface ReferrerDescriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly artifactType: unknown
  readonly annotations?: unknown
}

/** The descriptor by which `manifest` is listed among the referrers of `subject`; none when it is not one of them. */
function referrerDescriptor(manifest: Manifest, subject: string): readonly ReferrerDescriptor[] {
  const json = readObject(Buffer.from(manifest.bytes).toString())
  if (json === undefined || membersOf(json['subject'])?.['digest'] !== subject) return []
  const { mediaType, digest, bytes } = manifest
  // Without artifactType the config's type stands in for it (distribution-spec, "Listing Referrers").
  const artifactType = json['artifactType'] ?? membersOf(json['config'])?.['mediaType']
  const descriptor = { mediaType, digest, size: bytes.length, artifactType }
  return [json['annotations'] === undefined ? descriptor : { ...descriptor, annotations: json['annotations'] }]
}

function readObject(text: string): Record<string, unknown> | undefined {
  try {
    return membersOf(JSON.parse(text))
  } catch {
    // A test may load bytes that are no JSON; they refer to nothing.
    return undefined
  }
}

function membersOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null ? { ...value } : undefined
}

function byCodeUnit(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}
