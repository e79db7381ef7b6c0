/**
 * Every event this process logs: its level and its fields, in one table that the compiler checks each call against and
 * `docs/` can print. Names are `noun.verb`, past tense. A field that is not listed cannot be logged.
 */

/**
 * What a field holds. `text` is anything that came from outside or from an error: it is scrubbed of secrets and cut.
 * `string` is ours or was checked (names, digests, codes) and is written as it is. A `?` marks what may be missing.
 */
type FieldType = 'string' | 'text' | 'number' | 'boolean'
export type FieldMark = FieldType | `${FieldType}?`

export type Level = 'debug' | 'info' | 'warn' | 'error'

interface EventShape {
  readonly level: Level
  readonly fields: Readonly<Record<string, FieldMark>>
}

const CONTENT = { upstream: 'string', repository: 'string', digest: 'string' } as const
const TAG = { upstream: 'string', repository: 'string', reference: 'string' } as const

export const EVENTS = {
  // one per request
  'request.done': {
    level: 'info',
    fields: {
      requestId: 'string',
      method: 'string',
      path: 'text',
      status: 'number',
      bytes: 'number',
      ms: 'number',
      firstByteMs: 'number?',
      kind: 'string?',
      upstream: 'string?',
      repository: 'string?',
      reference: 'string?',
      digest: 'string?',
      outcome: 'string?',
      code: 'string?',
      reason: 'text?',
      isAborted: 'boolean?',
      listener: 'string?',
      client: 'string?',
      principal: 'text?',
      userAgent: 'text?',
    },
  },

  // bytes on their way in
  'fill.started': { level: 'debug', fields: { ...CONTENT, requestId: 'string?', bytes: 'number?', held: 'number?' } },
  'fill.committed': {
    level: 'info',
    fields: {
      ...CONTENT,
      bytes: 'number',
      fetched: 'number',
      ms: 'number',
      resumes: 'number?',
      connections: 'number?',
    },
  },
  'fill.failed': {
    level: 'warn',
    fields: { ...CONTENT, code: 'string', reason: 'text', held: 'number?', ms: 'number?' },
  },
  'fill.resumed': { level: 'info', fields: { ...CONTENT, at: 'number', code: 'string?', reason: 'text?' } },
  'fill.stopped': { level: 'info', fields: { ...CONTENT, held: 'number', bytes: 'number?' } },
  'commit.rejected': {
    level: 'error',
    fields: { ...CONTENT, reason: 'string', endpoint: 'string?', got: 'text?' },
  },
  'manifest.rejected': { level: 'warn', fields: { ...TAG, reason: 'text', code: 'string?' } },
  'blob.quarantined': { level: 'error', fields: { upstream: 'string', digest: 'string', reason: 'text' } },
  'blob.evicted': { level: 'info', fields: { upstream: 'string', digest: 'string', bytes: 'number' } },
  'image.completed': { level: 'info', fields: { ...CONTENT, blobs: 'number', bytes: 'number', ms: 'number' } },
  'image.incomplete': { level: 'warn', fields: { ...CONTENT, code: 'string', reason: 'text' } },

  // freshness
  'tag.revalidated': { level: 'debug', fields: { ...TAG, digest: 'string', isMoved: 'boolean', ms: 'number' } },
  'tag.moved': { level: 'info', fields: { ...TAG, digest: 'string', from: 'string?' } },
  'tag.served_stale': {
    level: 'warn',
    fields: { ...TAG, digest: 'string', code: 'string', reason: 'text', ageMs: 'number?' },
  },
  'tag.gone': { level: 'warn', fields: { ...TAG, digest: 'string?', isKept: 'boolean' } },
  'link.revoked': { level: 'warn', fields: { ...CONTENT, reason: 'text' } },

  // talking to upstreams
  'token.issued': {
    level: 'debug',
    fields: { upstream: 'string', realm: 'string', scope: 'text', expiresInMs: 'number', ms: 'number' },
  },
  'token.refused': {
    level: 'warn',
    fields: { upstream: 'string', realm: 'string', status: 'number?', reason: 'text' },
  },
  'credentials.rejected': { level: 'error', fields: { upstream: 'string', credential: 'string?', reason: 'text' } },
  'credentials.failed': { level: 'error', fields: { upstream: 'string', credential: 'string?', reason: 'text' } },
  'realm.rejected': { level: 'error', fields: { upstream: 'string', realm: 'text', reason: 'text' } },
  'address.refused': {
    level: 'error',
    fields: { upstream: 'string', host: 'text', address: 'text?', reason: 'text?' },
  },
  'endpoint.opened': {
    level: 'warn',
    fields: { upstream: 'string', endpoint: 'string', code: 'string', reason: 'text?', retryInMs: 'number' },
  },
  'endpoint.closed': { level: 'info', fields: { upstream: 'string', endpoint: 'string', openMs: 'number?' } },
  'upstream.retried': {
    level: 'debug',
    fields: { upstream: 'string', endpoint: 'string', code: 'string', attempt: 'number', delayMs: 'number' },
  },
  'upstream.throttled': {
    level: 'warn',
    fields: { upstream: 'string', endpoint: 'string?', retryAfterMs: 'number?', remaining: 'number?' },
  },
  'budget.sank': { level: 'warn', fields: { upstream: 'string', remaining: 'number', limit: 'number?' } },

  // what we keep
  'store.adopted': { level: 'info', fields: { upstream: 'string', repositories: 'number?' } },
  'store.recovered': {
    level: 'info',
    fields: { upstream: 'string', kept: 'number?', dropped: 'number?', quarantined: 'number?' },
  },
  'store.full': { level: 'error', fields: { upstream: 'string?', free: 'number?', wanted: 'number?' } },
  'store.failed': { level: 'error', fields: { upstream: 'string?', code: 'string?', reason: 'text' } },
  'ledger.failed': { level: 'error', fields: { reason: 'text' } },
  'ledger.rebuild_started': { level: 'info', fields: { upstream: 'string' } },
  'ledger.rebuilt': {
    level: 'info',
    fields: {
      upstream: 'string',
      repositories: 'number',
      manifests: 'number',
      tags: 'number',
      unreadable: 'number',
      failed: 'number',
      ms: 'number',
      reason: 'text?',
    },
  },
  'ledger.rebuild_failed': { level: 'error', fields: { upstream: 'string', reason: 'text' } },

  // the process
  'gateway.started': { level: 'info', fields: { version: 'string', ms: 'number?', upstreams: 'number?' } },
  'gateway.drained': { level: 'info', fields: { inFlight: 'number?', cut: 'number?', ms: 'number?' } },
  'gateway.stopped': { level: 'info', fields: { ms: 'number?' } },
  'process.stopping': { level: 'info', fields: { signal: 'string' } },
  'process.failed': { level: 'error', fields: { error: 'text' } },
  'process.signal_ignored': { level: 'info', fields: { signal: 'string', message: 'text' } },
  'listener.opened': { level: 'info', fields: { address: 'string', upstream: 'string?', isTls: 'boolean?' } },
  'listener.failed': { level: 'error', fields: { address: 'string', code: 'string?', reason: 'text' } },
  'connection.rejected': { level: 'debug', fields: { listener: 'string', client: 'string?', reason: 'text' } },
  'config.loaded': { level: 'info', fields: { file: 'string?', upstreams: 'number?' } },
  'config.rejected': { level: 'error', fields: { reason: 'text' } },
  'config.warned': { level: 'warn', fields: { reason: 'text' } },
  'certificate.loaded': { level: 'info', fields: { listener: 'string?', file: 'string?', expiresAt: 'number?' } },
  'certificate.rejected': { level: 'error', fields: { listener: 'string?', file: 'string?', reason: 'text' } },
  'defect.caught': { level: 'error', fields: { requestId: 'string?', reason: 'text', stack: 'text?' } },
  'log.dropped': { level: 'warn', fields: { lines: 'number' } },
} as const satisfies Readonly<Record<string, EventShape>>

export type EventName = keyof typeof EVENTS

interface FieldValues {
  readonly string: string
  readonly text: string
  readonly number: number
  readonly boolean: boolean
}
type ValueOf<M> = M extends `${infer T extends FieldType}?`
  ? FieldValues[T]
  : M extends FieldType
    ? FieldValues[M]
    : never
type OptionalNames<F> = { [K in keyof F]: F[K] extends `${string}?` ? K : never }[keyof F]

type FieldsOf<F> = { readonly [K in Exclude<keyof F, OptionalNames<F>>]: ValueOf<F[K]> } & {
  readonly [K in OptionalNames<F>]?: ValueOf<F[K]> | undefined
}

/** The fields of one event, as the table says; an optional one may also be given as undefined. */
export type EventFields<E extends EventName> = FieldsOf<(typeof EVENTS)[E]['fields']>
