/** The registry protocol as a client speaks it: one upstream, its questions, and what the replies mean. */
import { systemClock, type Clock } from '../async/clock.ts'
import { GatewayError } from '../errors.ts'
import { algorithmOf, digestOf, parseDigest, type Digest } from '../oci/digest.ts'
import { MAX_MANIFEST_BYTES } from '../oci/manifest.ts'
import { MANIFEST_ACCEPT, OCI_INDEX } from '../oci/media-types.ts'
import { isDigest, type Reference } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import { assemble, type Assembly } from './assembly.ts'
import { openStream, rangeHeader } from './blob-stream.ts'
import { withDeadline } from './deadline.ts'
import type { RegistryReply, RegistryRequest } from './attempt.ts'
import { isCredibleHead, refusalOf } from './failures.ts'
import { nextQuery } from './link.ts'
import type { UpstreamOptions } from './options.ts'
import { Prober, type ProbeOptions, type ProbeReport } from './probe.ts'
import { headOf, lengthOf, mediaTypeOf, parseTags, readWhole, refusePage } from './replies.ts'
import { retryAfterOf } from './retry.ts'
import { SignedLocation } from './signed-location.ts'
import type { IncomingReply } from './transport.ts'
import { TransportError } from './transport-error.ts'
import type {
  BlobCallOptions,
  BlobStream,
  CallOptions,
  FetchedManifest,
  ManifestHead,
  ReferrersPage,
  TagPage,
  Upstream,
} from './upstream.ts'

/** A page of tags or referrers: faults.md R70. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024
/** Replies to HEAD after which a GET may still say more. */
const HEAD_REFUSED: readonly number[] = [400, 403, 405, 406, 501]
/** A registry without the referrers API: distribution-spec says 404; 405 and 501 are seen. */
const NO_REFERRERS: readonly number[] = [404, 405, 501]

/** Opens the client of one upstream. Nothing is dialled before the first call. CONFIG_INVALID for a malformed CIDR. */
export function openUpstream(options: UpstreamOptions): RegistryUpstream {
  return new RegistryUpstream(options)
}

export class RegistryUpstream implements Upstream {
  readonly name: string
  readonly #clock: Clock
  readonly #maxManifestBytes: number
  readonly #parts: Assembly
  readonly #prober: Prober
  /** It answered HEAD of a manifest with 405: asked by GET from now on. */
  #refusesHead = false

  constructor(options: UpstreamOptions) {
    this.name = options.name
    this.#clock = options.clock ?? systemClock
    this.#maxManifestBytes = options.maxManifestBytes ?? MAX_MANIFEST_BYTES
    this.#parts = assemble(options)
    this.#prober = new Prober({ ...this.#parts, upstream: this })
  }

  async headManifest(repository: Repository, reference: Reference, options: CallOptions): Promise<ManifestHead> {
    const head = this.#refusesHead ? undefined : await this.#tryHead(repository, reference, options)
    if (head !== undefined) return head
    const { bytes, mediaType } = await this.fetchManifest(repository, reference, options)
    const algorithm = isDigest(reference) ? algorithmOf(reference) : 'sha256'
    return { digest: digestOf(bytes, algorithm), mediaType, size: bytes.length }
  }

  async fetchManifest(repository: Repository, reference: Reference, options: CallOptions): Promise<FetchedManifest> {
    const request = this.#manifestRequest('GET', repository, reference)
    return this.#ask(request, options, async (reply) => {
      if (reply.status !== 200) throw await refusalOf(reply, 'manifest', request.subject)
      const mediaType = mediaTypeOf(reply.headers)
      refusePage(reply, request.subject)
      const bytes = await readWhole(reply, this.#maxManifestBytes, request.subject)
      return { bytes, mediaType, claimedDigest: parseDigest(reply.headers.get('docker-content-digest') ?? '') }
    })
  }

  async headBlob(
    repository: Repository,
    digest: Digest,
    options: CallOptions,
  ): Promise<{ readonly size: number | undefined }> {
    const request = this.#blobRequest('HEAD', repository, digest)
    // A URL signed for GET often refuses HEAD, and only a 2xx proves anything: so a redirect away is settled by GET.
    const told = await this.#ask({ ...request, staysHome: true }, options, async (reply) => {
      const { status, headers } = reply
      const isFinal = status === 200 || (status === 404 && isCredibleHead(headers)) || status === 401
      if (isFinal && status !== 200) throw await refusalOf(reply, 'blob', request.subject)
      await reply.body.discard()
      return isFinal ? { size: lengthOf(headers) } : undefined
    })
    if (told !== undefined) return told
    const stream = await this.openBlob(repository, digest, {
      ...options,
      range: { from: 0, to: 1 },
      session: {},
    })
    stream.cancel()
    return { size: stream.size }
  }

  async openBlob(repository: Repository, digest: Digest, options: BlobCallOptions): Promise<BlobStream> {
    const { range, session } = options
    const request = { ...this.#blobRequest('GET', repository, digest), range: rangeHeader(range) }
    const known = SignedLocation.of(session, digest)
    const streamOptions = { range, knownSize: known?.size, subject: request.subject }
    const url = known?.urlAt(this.#clock.now())
    const direct = url === undefined ? undefined : await this.#openSigned(url, request, options)
    SignedLocation.forget(session, digest)
    if (direct !== undefined && url !== undefined) {
      const stream = openStream(direct, streamOptions)
      SignedLocation.remember(session, { digest, url, size: stream.size ?? known?.size }, this.#clock.now())
      return stream
    }
    const reply = await this.#parts.exchange.send(request, options)
    if (reply.status !== 200 && reply.status !== 206) {
      throw await this.#bounded(request.subject, options.signal, () => refusalOf(reply, 'blob', request.subject))
    }
    session.blame = () => reply.endpoint.blame()
    const stream = openStream(reply, streamOptions)
    const place = { digest, url: reply.hasLeft ? reply.url : undefined, size: stream.size ?? known?.size }
    SignedLocation.remember(session, place, this.#clock.now())
    return stream
  }

  async listTags(repository: Repository, query: string, options: CallOptions): Promise<TagPage> {
    const subject = `GET ${this.name}/${repository} tags`
    const request = {
      kind: 'tags',
      method: 'GET',
      repository,
      path: `${repository}/tags/list`,
      query,
      subject,
    } as const
    return this.#ask({ ...request, accept: 'application/json', capability: 'resolve' }, options, async (reply) => {
      if (reply.status !== 200) throw await refusalOf(reply, 'tags', subject)
      refusePage(reply, subject)
      const bytes = await readWhole(reply, MAX_PAGE_BYTES, subject)
      return { tags: parseTags(bytes, subject), next: nextQuery(reply.headers.getAll('link'), reply.url, subject) }
    })
  }

  async listReferrers(
    repository: Repository,
    digest: Digest,
    query: string,
    options: CallOptions,
  ): Promise<ReferrersPage | undefined> {
    const subject = `GET ${this.name}/${repository} referrers of ${digest}`
    const request = {
      kind: 'referrers',
      method: 'GET',
      repository,
      path: `${repository}/referrers/${digest}`,
      query,
      subject,
    } as const
    return this.#ask({ ...request, accept: OCI_INDEX, capability: 'resolve' }, options, async (reply) => {
      const { status, headers, body, url } = reply
      // A registry that does not know the path may answer 200 with a page: only an index is an answer (distribution-spec).
      if (NO_REFERRERS.includes(status) || (status === 200 && mediaTypeOf(headers) !== OCI_INDEX)) {
        await body.discard()
        return undefined
      }
      if (status !== 200) throw await refusalOf(reply, 'referrers', subject)
      const bytes = await readWhole(reply, MAX_PAGE_BYTES, subject)
      const next = nextQuery(headers.getAll('link'), url, subject)
      return { bytes, filtersApplied: headers.get('oci-filters-applied'), next }
    })
  }

  /** The credential rule (`auth[0]`) that reads a repository; undefined: we are anonymous there. */
  identityOf(repository: Repository): string | undefined {
    return this.#parts.authorizer.identityOf(repository)
  }

  /** What `entrepot check` shows: each endpoint step by step, then one HEAD. Never rejects. */
  probe(options: ProbeOptions): Promise<ProbeReport> {
    return this.#prober.probe(options)
  }

  close(): Promise<void> {
    return this.#parts.transport.close()
  }

  /** Undefined when only a GET can tell. */
  #tryHead(repository: Repository, reference: Reference, options: CallOptions): Promise<ManifestHead | undefined> {
    const request = this.#manifestRequest('HEAD', repository, reference)
    return this.#ask(request, options, async (reply) => {
      const { status, headers } = reply
      const mayGetTell = HEAD_REFUSED.includes(status) || (status === 404 && !isCredibleHead(headers))
      if (status !== 200 && !mayGetTell) throw await refusalOf(reply, 'manifest', request.subject)
      if (status === 405) this.#refusesHead = true
      if (status === 200) refusePage(reply, request.subject)
      await reply.body.discard()
      return status === 200 ? headOf(reply) : undefined
    })
  }

  /** One exchange and the reading of its reply, under one deadline. */
  #ask<T>(request: RegistryRequest, options: CallOptions, read: (reply: RegistryReply) => Promise<T>): Promise<T> {
    return this.#bounded(request.subject, options.signal, async (signal) =>
      read(await this.#parts.exchange.send(request, { ...options, signal })),
    )
  }

  /** What breaks while a small body is read is told like any other failure of the connection. */
  async #bounded<T>(subject: string, signal: AbortSignal, work: (bounded: AbortSignal) => Promise<T>): Promise<T> {
    const ms = this.#parts.timeouts.callMs
    const unreachable = (what: string, cause?: unknown): Error =>
      new GatewayError('UPSTREAM_UNREACHABLE', `${subject}: ${what}`, { cause })
    try {
      return await withDeadline({ ms, signal, onLate: () => unreachable(`timeout, not done within ${ms} ms`) }, work)
    } catch (error) {
      throw error instanceof TransportError ? unreachable(`${error.kind} (${error.message})`, error) : error
    }
  }

  /** The bytes from where an earlier redirect led; undefined when the registry has to be asked again. */
  async #openSigned(url: URL, request: RegistryRequest, options: BlobCallOptions): Promise<IncomingReply | undefined> {
    try {
      const reply = await this.#parts.attempt.sendTo(url, request, options)
      const { status, headers, body } = reply
      if (status === 200 || status === 206) return reply
      await body.discard()
      if (status !== 429) return undefined
      const retryAfterMs = retryAfterOf(headers.get('retry-after'), this.#clock.now())
      const after = retryAfterMs === undefined ? {} : { retryAfterMs }
      throw new GatewayError('UPSTREAM_THROTTLED', `${request.subject}: 429 from ${url.host}`, after)
    } catch (error) {
      if (!(error instanceof TransportError)) throw error
      return undefined
    }
  }

  #manifestRequest(method: 'GET' | 'HEAD', repository: Repository, reference: Reference): RegistryRequest {
    const byDigest = isDigest(reference)
    return {
      kind: 'manifest',
      method,
      repository,
      path: `${repository}/manifests/${reference}`,
      query: '',
      accept: MANIFEST_ACCEPT,
      capability: byDigest ? 'pull' : 'resolve',
      subject: `${method} ${this.name}/${repository}${byDigest ? '@' : ':'}${reference}`,
    }
  }

  #blobRequest(method: 'GET' | 'HEAD', repository: Repository, digest: Digest): RegistryRequest {
    const subject = `${method} ${this.name}/${repository}@${digest}`
    const path = `${repository}/blobs/${digest}`
    return { kind: 'blob', method, repository, path, query: '', accept: '*/*', capability: 'pull', subject }
  }
}
