/** The one error class. Branch on `code`, never on text; `registry/error-reply.ts` maps each code to status and body. */

export type ErrorCode =
  // what the client asked for
  | 'ROUTE_UNKNOWN' // no upstream is declared for this address
  | 'ROUTE_CONFLICT' // ns and prefix, or two selectors, name different upstreams
  | 'NAME_INVALID'
  | 'ENDPOINT_UNKNOWN' // a path below /v2/ that is none of the API
  | 'DIGEST_INVALID'
  | 'RANGE_INVALID'
  | 'PAGINATION_INVALID'
  | 'UNSUPPORTED' // a write, or a method we do not serve
  | 'BAD_REQUEST'
  | 'DENIED_BY_RULE' // allow/deny of this gateway
  | 'UNAUTHENTICATED' // no password, or a wrong one
  | 'CLIENT_DENIED' // this client may not: wrong network, certificate or user
  | 'LOGIN_THROTTLED' // too many failed logins from one address
  // what the upstream answered: answers
  | 'MANIFEST_UNKNOWN'
  | 'BLOB_UNKNOWN'
  | 'NAME_UNKNOWN'
  | 'UPSTREAM_DENIED' // 401 after a fresh token, or 403
  // what the upstream did not answer: a stale answer may stand in for each of these
  | 'UPSTREAM_UNREACHABLE' // DNS, connect, TLS, timeout, reset
  | 'UPSTREAM_ERROR' // 5xx or a status that fits no rule
  | 'UPSTREAM_THROTTLED' // 429
  | 'UPSTREAM_INVALID' // wrong digest, length, type, range: protocol or integrity violation
  | 'CREDENTIALS_REJECTED' // the token server or registry refused our credentials
  | 'REALM_REJECTED' // a challenge named a realm we do not trust
  | 'ADDRESS_REFUSED' // the guarded dialer refused an address
  | 'OFFLINE' // this upstream is configured `offline: true`
  // ourselves
  | 'OVERLOADED'
  | 'STORE_FULL'
  | 'STORE_FAILED'
  | 'STORE_UNUSABLE' // at start: not writable, in use, another registry's bytes…
  | 'CONFIG_INVALID'
  | 'PORT_UNAVAILABLE'

export interface GatewayErrorOptions {
  readonly cause?: unknown
  /** It repeats what the upstream said a moment ago: nothing was asked for it. */
  readonly isRemembered?: boolean
  /** Milliseconds after which a new try makes sense. */
  readonly retryAfterMs?: number
  /** The error code in the upstream's own body (`DENIED`): only a registry writes one. */
  readonly upstreamCode?: string | undefined
}

/** `message` says what was tried, on what, and what came back. It never holds a credential or a query string. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly code: ErrorCode
  readonly retryAfterMs: number | undefined
  readonly upstreamCode: string | undefined
  readonly isRemembered: boolean

  constructor(code: ErrorCode, message: string, options: GatewayErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryAfterMs = options.retryAfterMs
    this.isRemembered = options.isRemembered === true
    this.upstreamCode = options.upstreamCode
  }
}

/** The code of `error` when it is ours. */
export function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof GatewayError ? error.code : undefined
}

const NON_ANSWERS: ReadonlySet<string> = new Set([
  'UPSTREAM_UNREACHABLE',
  'UPSTREAM_ERROR',
  'UPSTREAM_THROTTLED',
  'UPSTREAM_INVALID',
  'CREDENTIALS_REJECTED',
  'REALM_REJECTED',
  'ADDRESS_REFUSED',
  'OFFLINE',
] satisfies ErrorCode[])

/**
 * Whether the upstream gave no answer at all, so that what we hold stays the best answer there is. A 404 is an answer;
 * a timeout, a reset, a 429, a 5xx or a login page is not, and must never be told as "gone".
 */
export function isNonAnswer(error: unknown): boolean {
  const code = codeOf(error)
  return code !== undefined && NON_ANSWERS.has(code)
}
