/** Turns what the parts tell into log events and metrics. Metrics are labelled by what the configuration names. */
import type { BlobEvent } from '../cache/blob-cache.ts'
import type { ManifestEvent } from '../cache/manifest-cache.ts'
import type { RightsEvent } from '../cache/watched-upstream.ts'
import { codeOf, type ErrorCode } from '../errors.ts'
import type { KeepingEvent } from '../keeping/namespace.ts'
import type { RequestDone } from '../http/access-log.ts'
import type { Refused } from '../http/refusal.ts'
import type { NamespaceObserver } from './namespaces.ts'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics, StaleReason, UpstreamMetrics } from '../telemetry/metrics.ts'
import type { UpstreamEvent } from '../upstream/options.ts'

export interface ObserverOptions {
  readonly log: Log
  readonly metrics: Metrics
}

const STALE_REASONS: Readonly<Partial<Record<ErrorCode | 'SLOW', StaleReason>>> = {
  UPSTREAM_UNREACHABLE: 'unreachable',
  UPSTREAM_ERROR: 'error',
  UPSTREAM_THROTTLED: 'throttled',
  UPSTREAM_INVALID: 'invalid',
  UPSTREAM_DENIED: 'denied',
  CREDENTIALS_REJECTED: 'denied',
  MANIFEST_UNKNOWN: 'gone',
  NAME_UNKNOWN: 'gone',
  OFFLINE: 'offline',
  SLOW: 'slow',
}

/** What the upstream says of content, and rights to it. */
const ANSWERS: ReadonlySet<string> = new Set(['BLOB_UNKNOWN', 'NAME_UNKNOWN', 'UPSTREAM_DENIED'] satisfies ErrorCode[])

export class Observer implements NamespaceObserver {
  readonly #log: Log
  readonly #metrics: Metrics

  constructor({ log, metrics }: ObserverOptions) {
    this.#log = log
    this.#metrics = metrics
  }

  secret(secret: string): void {
    this.#log.hide(secret)
  }

  /** One request of a client, ended. */
  request(done: RequestDone): void {
    const { error, pattern, slow, aborted, ms, ...facts } = done
    const metrics = this.#metrics.upstream(pattern ?? done.upstream ?? '')
    const { status, outcome = 'none', kind = 'other' } = done
    metrics.requestDone({ kind, outcome, status, seconds: ms / 1000 })
    metrics.bytesMoved('client', done.bytes)
    if (!this.#log.isEnabled('info')) return
    this.#log.event('request.done', {
      ...facts,
      ms: Math.round(ms * 10) / 10,
      ...(aborted ? { isAborted: true } : {}),
      ...(slow ? { isSlow: true } : {}),
      ...(done.code === undefined ? {} : { reason: messageOf(error) }),
    })
    if (done.code === 'INTERNAL') {
      this.#log.event('defect.caught', {
        requestId: done.requestId,
        reason: messageOf(error),
        stack: error instanceof Error ? error.stack : undefined,
      })
    }
  }

  /** Something on a connection that is no request we take. */
  refused({ requestId, client, status, message }: Refused): void {
    this.#log.event('request.refused', { requestId, client, status, reason: message })
  }

  upstream(name: string, label: string, event: UpstreamEvent): void {
    const metrics = this.#metrics.upstream(label)
    switch (event.type) {
      case 'request.done':
        metrics.upstreamCalled(event.kind, event.status === 0 ? 'unreachable' : event.status)
        metrics.bytesMoved('upstream', event.bytes)
        return
      case 'token.issued':
        metrics.tokenIssued()
        return this.#log.event('token.issued', {
          upstream: name,
          realm: event.realm,
          scope: event.scope,
          expiresInMs: event.expiresInMs,
        })
      case 'credential.rejected':
        return this.#log.event('credentials.rejected', {
          upstream: name,
          credential: event.credential,
          by: event.by,
          reason: event.detail,
        })
      case 'endpoint.opened':
        return this.#log.event('endpoint.opened', {
          upstream: name,
          endpoint: event.endpoint,
          retryInMs: Math.round(event.retryInMs),
        })
      case 'endpoint.closed':
        return this.#log.event('endpoint.closed', { upstream: name, endpoint: event.endpoint })
      case 'throttled':
        return this.#log.event('upstream.throttled', {
          upstream: name,
          endpoint: event.endpoint,
          retryAfterMs: Math.round(event.retryAfterMs),
        })
    }
  }

  fill(name: string, label: string, digest: Digest, event: BlobEvent): void {
    const metrics = this.#metrics.upstream(label)
    const content = { upstream: name, digest }
    switch (event.kind) {
      case 'started':
        metrics.fillStarted()
        return this.#log.event('fill.started', { ...content, repository: event.repository })
      case 'resumed':
        metrics.fillResumed()
        return this.#log.event('fill.resumed', { ...content, at: event.position, reason: event.reason })
      case 'committed':
        metrics.fillEnded()
        return this.#log.event('fill.committed', { ...content, bytes: event.bytes, ms: Math.round(event.ms) })
      case 'stopped':
        metrics.fillEnded()
        return this.#log.event('fill.stopped', { ...content, held: event.heldBytes })
      case 'quarantined':
        metrics.commitRejected('stored')
        return this.#log.event('blob.quarantined', { ...content, reason: event.reason })
      case 'not_linked':
        return this.#log.event('store.failed', {
          upstream: name,
          code: codeOf(event.error),
          reason: `${event.repository}@${digest} is stored without a link: ${messageOf(event.error)}`,
        })
      case 'failed':
        return this.#fillFailed(metrics, content, event.error.code, event.error.message)
    }
  }

  manifest(name: string, label: string, event: ManifestEvent | RightsEvent): void {
    switch (event.kind) {
      case 'stored':
        return
      case 'revalidated': {
        const { repository, tag, digest, isMoved } = event
        const fields = { upstream: name, repository, reference: tag, digest }
        return isMoved ? this.#log.event('tag.moved', fields) : this.#log.event('tag.revalidated', fields)
      }
      case 'served_stale': {
        this.#metrics.upstream(label).servedStale(STALE_REASONS[event.code] ?? 'error')
        const { repository, tag: reference, code, reason } = event
        return this.#log.event('tag.served_stale', { upstream: name, repository, reference, code, reason })
      }
      case 'gone':
        return this.#log.event('tag.gone', {
          upstream: name,
          repository: event.repository,
          reference: event.tag,
          isKept: event.isKept,
        })
      case 'denied': {
        const { repository, verdict, reason } = event
        return this.#log.event('repository.denied', { upstream: name, repository, verdict, reason })
      }
      case 'revoked': {
        const { repository, manifests, reason } = event
        return this.#log.event('repository.revoked', { upstream: name, repository, manifests, reason })
      }
      case 'quarantined': {
        this.#metrics.upstream(label).commitRejected('stored')
        return this.#log.event('blob.quarantined', {
          upstream: name,
          digest: event.digest,
          reason: 'its bytes do not hash to its name',
        })
      }
      case 'not_stored':
        return this.#log.event('store.failed', {
          upstream: name,
          code: codeOf(event.error),
          reason: messageOf(event.error),
        })
    }
  }

  completeFailed(name: string, _label: string, repository: Repository, digest: Digest, error: unknown): void {
    this.#log.event('image.incomplete', {
      upstream: name,
      repository,
      digest,
      code: codeOf(error),
      reason: messageOf(error),
    })
  }

  keeping({ name, label }: { readonly name: string; readonly label: string }, event: KeepingEvent): void {
    switch (event.kind) {
      case 'image.evicted': {
        this.#metrics.upstream(label).imageEvicted(event.reason)
        const { repository, digest, tags, reason, bytes } = event
        return this.#log.event(event.kind, { upstream: name, repository, digest, tags: tags.join(' '), reason, bytes })
      }
      case 'blob.evicted': {
        const { digest, reason, bytes } = event
        this.#metrics.upstream(label).blobEvicted(reason, bytes)
        return this.#log.event(event.kind, { upstream: name, digest, reason, bytes })
      }
      case 'swept': {
        const { blobs, bytes, links } = event
        return this.#log.event('store.swept', { upstream: name, blobs, bytes, links })
      }
      case 'failed': {
        const reason = `${event.what}: ${messageOf(event.error)}`
        return this.#log.event('keeping.failed', { upstream: name, code: codeOf(event.error), reason })
      }
    }
  }

  #fillFailed(
    metrics: UpstreamMetrics,
    content: { upstream: string; digest: Digest },
    code: ErrorCode,
    reason: string,
  ): void {
    metrics.fillEnded()
    if (code === 'UPSTREAM_INVALID') metrics.commitRejected('digest')
    // An answer is no failure: the request's own line tells it.
    if (ANSWERS.has(code)) return
    this.#log.event('fill.failed', { ...content, code, reason })
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
