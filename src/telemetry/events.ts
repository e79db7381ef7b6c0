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

const BLOB = { upstream: 'string', digest: 'string' } as const
const CONTENT = { ...BLOB, repository: 'string' } as const
const TAG = { upstream: 'string', repository: 'string', reference: 'string' } as const

export const EVENTS = {
  // one per request
  'request.done': {
    level: 'info',
    fields: {
      requestId: 'string',
      method: 'string',
      status: 'number',
      bytes: 'number',
      ms: 'number',
      kind: 'string?',
      via: 'string?',
      upstream: 'string?',
      repository: 'string?',
      reference: 'string?',
      outcome: 'string?',
      code: 'string?',
      reason: 'text?',
      isAborted: 'boolean?',
      isSlow: 'boolean?',
      client: 'string',
      principal: 'text?',
      userAgent: 'text?',
    },
  },

  // what is not even one
  'request.refused': {
    level: 'info',
    fields: { requestId: 'string', client: 'string', status: 'number', reason: 'text' },
  },

  // bytes on their way in
  'fill.started': { level: 'debug', fields: CONTENT },
  'fill.resumed': { level: 'info', fields: { ...BLOB, at: 'number', reason: 'text' } },
  'fill.committed': { level: 'info', fields: { ...BLOB, bytes: 'number', ms: 'number' } },
  'fill.failed': { level: 'warn', fields: { ...BLOB, code: 'string', reason: 'text' } },
  'fill.stopped': { level: 'info', fields: { ...BLOB, held: 'number' } },
  'blob.quarantined': { level: 'error', fields: { ...BLOB, reason: 'text' } },
  'image.incomplete': { level: 'warn', fields: { ...CONTENT, code: 'string?', reason: 'text' } },

  // freshness
  'tag.revalidated': { level: 'debug', fields: { ...TAG, digest: 'string' } },
  'tag.moved': { level: 'info', fields: { ...TAG, digest: 'string' } },
  'tag.served_stale': { level: 'warn', fields: { ...TAG, code: 'string', reason: 'text' } },
  'tag.gone': { level: 'warn', fields: { ...TAG, isKept: 'boolean' } },

  // rights
  'repository.denied': {
    level: 'warn',
    fields: { upstream: 'string', repository: 'string', verdict: 'string', reason: 'text' },
  },
  'repository.revoked': {
    level: 'error',
    fields: { upstream: 'string', repository: 'string', manifests: 'number', reason: 'text' },
  },

  // talking to upstreams
  'token.issued': {
    level: 'debug',
    fields: { upstream: 'string', realm: 'string', scope: 'text', expiresInMs: 'number' },
  },
  'credentials.rejected': {
    level: 'error',
    fields: { upstream: 'string', credential: 'string', by: 'string', reason: 'text' },
  },
  'endpoint.opened': { level: 'warn', fields: { upstream: 'string', endpoint: 'string', retryInMs: 'number' } },
  'endpoint.closed': { level: 'info', fields: { upstream: 'string', endpoint: 'string' } },
  'upstream.throttled': { level: 'warn', fields: { upstream: 'string', endpoint: 'string', retryAfterMs: 'number' } },

  // what we keep
  'store.failed': { level: 'error', fields: { upstream: 'string', code: 'string?', reason: 'text' } },
  'image.evicted': { level: 'info', fields: { ...CONTENT, tags: 'string', reason: 'string', bytes: 'number' } },
  'blob.evicted': { level: 'debug', fields: { ...BLOB, reason: 'string', bytes: 'number' } },
  'store.swept': { level: 'info', fields: { upstream: 'string', blobs: 'number', bytes: 'number', links: 'number' } },
  'keeping.failed': { level: 'error', fields: { upstream: 'string', code: 'string?', reason: 'text' } },
  'ledger.failed': { level: 'error', fields: { reason: 'text' } },
  'ledger.rebuilt': {
    level: 'info',
    fields: { upstream: 'string', repositories: 'number', manifests: 'number', tags: 'number', unreadable: 'number' },
  },

  // who may
  'clients.reloaded': { level: 'info', fields: { users: 'number' } },
  'clients.reload_failed': { level: 'error', fields: { reason: 'text' } },

  // the process
  'gateway.started': { level: 'info', fields: { version: 'string', listeners: 'text', upstreams: 'number' } },
  'gateway.stopping': { level: 'info', fields: { signal: 'string' } },
  'gateway.stopped': { level: 'info', fields: { reason: 'string', drained: 'boolean' } },
  'config.warned': { level: 'warn', fields: { reason: 'text' } },
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
