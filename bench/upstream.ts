// The registry all peers pull from: a program of its own that serves generated images from memory, as fast as node:http
// goes or at a rate per connection and a delay per request, and counts what it was asked and what it sent.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { OCI_MANIFEST } from '../src/oci/media-types.ts'
import { answerParent } from './child.ts'
import { type GeneratedImage, generateImage, type Image, type ImagePlan } from './image.ts'

export interface Pace {
  /** Bytes a second on each connection; undefined: as fast as it goes. */
  readonly bytesPerSecond?: number
  /** Milliseconds before the head of each answer. */
  readonly delayMs?: number
}

export interface Counts {
  readonly requests: number
  readonly manifestRequests: number
  readonly blobRequests: number
  /** Bytes of bodies handed to the kernel. */
  readonly bytes: number
}

export type UpstreamQuestion =
  | { readonly kind: 'listen' }
  /** Replaces the images held. */
  | { readonly kind: 'load'; readonly plans: readonly ImagePlan[] }
  | { readonly kind: 'pace'; readonly pace: Pace }
  /** Counts since the last time this was asked. */
  | { readonly kind: 'counts' }

export interface UpstreamReply {
  readonly port: number
  readonly images: readonly Image[]
  readonly counts: Counts
}

const KINDS: readonly unknown[] = ['listen', 'load', 'pace', 'counts'] satisfies UpstreamQuestion['kind'][]
const PATH = /^\/v2\/(?<repository>.+)\/(?<kind>manifests|blobs)\/(?<reference>[^/]+)$/
const RANGE = /^bytes=(?<from>\d+)-(?<to>\d*)$/
const CHUNK_BYTES = 1024 * 1024
/** Timers come late on a busy machine; what was missed may be sent at once up to this much time's worth. */
const BURST_SECONDS = 0.05
const TICK_MS = 2
const NO_COUNTS: Counts = { requests: 0, manifestRequests: 0, blobRequests: 0, bytes: 0 }

class UpstreamRegistry {
  readonly #server = createServer((request, response) => {
    this.#serve(request, response).catch(() => response.destroy())
  })
  #images: readonly GeneratedImage[] = []
  #pace: Pace = {}
  #counts = NO_COUNTS

  async answer(question: UpstreamQuestion): Promise<UpstreamReply> {
    let counts = NO_COUNTS
    if (question.kind === 'listen') await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    if (question.kind === 'load') this.#images = question.plans.map((plan) => generateImage(plan))
    if (question.kind === 'pace') this.#pace = question.pace
    if (question.kind === 'counts') {
      counts = this.#counts
      this.#counts = NO_COUNTS
    }
    const address = this.#server.address()
    const port = address !== null && typeof address === 'object' ? address.port : 0
    return { port, images: this.#images.map((image) => imageOf(image)), counts }
  }

  #count(more: Partial<Counts>): void {
    const counts = this.#counts
    this.#counts = {
      requests: counts.requests + (more.requests ?? 0),
      manifestRequests: counts.manifestRequests + (more.manifestRequests ?? 0),
      blobRequests: counts.blobRequests + (more.blobRequests ?? 0),
      bytes: counts.bytes + (more.bytes ?? 0),
    }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pace = this.#pace
    const path = (request.url ?? '').split('?', 1)[0] ?? ''
    const { repository = '', kind, reference = '' } = PATH.exec(path)?.groups ?? {}
    this.#count({
      requests: 1,
      manifestRequests: kind === 'manifests' ? 1 : 0,
      blobRequests: kind === 'blobs' ? 1 : 0,
    })
    if (pace.delayMs !== undefined) await delay(pace.delayMs)
    if (path === '/v2/' || path === '/v2') return void response.writeHead(200, { 'content-length': 2 }).end('{}')
    const found = kind === undefined ? undefined : this.#find(repository, kind, reference)
    if (found === undefined) return refuse(response)
    await this.#send(request, response, found, pace)
  }

  #find(repository: string, kind: string, reference: string): Found | undefined {
    for (const image of this.#images) {
      if (image.repository !== repository) continue
      const isManifest = reference === image.tag || reference === image.manifest.digest
      if ((kind === 'manifests') !== isManifest) continue
      const digest = isManifest ? image.manifest.digest : reference
      const bytes = image.content.get(digest)
      if (bytes !== undefined) return { digest, bytes, type: isManifest ? OCI_MANIFEST : 'application/octet-stream' }
    }
    return undefined
  }

  async #send(request: IncomingMessage, response: ServerResponse, found: Found, pace: Pace): Promise<void> {
    const { digest, bytes, type } = found
    const range = type === OCI_MANIFEST ? undefined : RANGE.exec(request.headers.range ?? '')?.groups
    const from = Number(range?.['from'] ?? 0)
    const last = Math.min(bytes.length - 1, range?.['to'] ? Number(range['to']) : Infinity)
    if (range !== undefined && from > last) {
      const headers = { 'content-range': `bytes */${bytes.length}`, 'content-length': 0 }
      return void response.writeHead(416, headers).end()
    }
    const body = bytes.subarray(from, last + 1)
    response.writeHead(range === undefined ? 200 : 206, {
      'content-type': type,
      'content-length': body.length,
      'docker-content-digest': digest,
      'docker-distribution-api-version': 'registry/2.0',
      etag: `"${digest}"`,
      ...(type === OCI_MANIFEST ? {} : { 'accept-ranges': 'bytes' }),
      ...(range === undefined ? {} : { 'content-range': `bytes ${from}-${last}/${bytes.length}` }),
    })
    if (request.method === 'HEAD') return void response.end()
    await this.#write(response, body, pace.bytesPerSecond)
  }

  async #write(response: ServerResponse, body: Uint8Array, bytesPerSecond: number | undefined): Promise<void> {
    const burst = bytesPerSecond === undefined ? Infinity : bytesPerSecond * BURST_SECONDS
    let allowance = bytesPerSecond === undefined ? Infinity : (bytesPerSecond * TICK_MS) / 1000
    let checkedAt = performance.now()
    for (let sent = 0; sent < body.length && !response.destroyed;) {
      if (bytesPerSecond !== undefined) {
        const now = performance.now()
        allowance = Math.min(burst, allowance + ((now - checkedAt) / 1000) * bytesPerSecond)
        checkedAt = now
        if (allowance < 1) {
          await delay(TICK_MS)
          continue
        }
      }
      const chunk = body.subarray(sent, sent + Math.floor(Math.min(CHUNK_BYTES, allowance)))
      sent += chunk.length
      allowance -= chunk.length
      this.#count({ bytes: chunk.length })
      if (!response.write(chunk)) await drained(response)
    }
    response.end()
  }
}

interface Found {
  readonly digest: string
  readonly bytes: Uint8Array
  readonly type: string
}

/** The image without its bytes, which stay in this process. */
function imageOf(generated: GeneratedImage): Image {
  const { repository, tag, manifest, config, layers, bytes } = generated
  return { repository, tag, manifest, config, layers, bytes }
}

/** Until there is room again or nobody is left to write to. */
function drained(response: ServerResponse): Promise<void> {
  if (response.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done).off('close', done)
      resolve()
    }
    response.on('drain', done).on('close', done)
  })
}

function refuse(response: ServerResponse): void {
  const body = '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not among the generated images"}]}'
  response.writeHead(404, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
}

function isQuestion(value: unknown): value is UpstreamQuestion {
  return typeof value === 'object' && value !== null && 'kind' in value && KINDS.includes(value.kind)
}

if (import.meta.main) {
  const registry = new UpstreamRegistry()
  answerParent(isQuestion, (question) => registry.answer(question))
}
