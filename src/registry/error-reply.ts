/** What a client is told when something failed: one table from our codes to status, OCI code and a fixed sentence. */
import { codeOf, GatewayError, type ErrorCode } from '../errors.ts'
import type { Reply } from '../http/reply.ts'
import type { OciErrorCode } from '../oci/error-codes.ts'
import { jsonHeaders } from './headers.ts'

export interface ErrorRule {
  readonly status: number
  readonly ociCode: OciErrorCode
  /** `error` of Proxy-Status (RFC 9209 section 2.3), where the fault lies behind us. */
  readonly proxyStatus?: string
  /** Seconds in Retry-After when the error names none. */
  readonly retryAfter?: number
  /**
   * What the client reads. Where `detail` is set the error's own message follows: those errors are about what the client
   * itself sent. Others speak of upstreams and folders and stay in our log, found by the request id.
   */
  readonly sentence: string
  readonly detail?: true
}

const NON_ANSWER = { status: 503, ociCode: 'UNAVAILABLE', retryAfter: 5 } as const

/**
 * Why these statuses: clients go to their next host on 404; 503 with Retry-After is retried or passed over, 429 is repeated
 * at once by containerd and makes dockerd bypass us, 502 is never retried. So 429 only when the upstream said it, 502 only
 * for bytes that were wrong. A denial by the upstream is 404: a 401 would start a login at the wrong place. A denial by our
 * own rules is 403, because clients print what a 403 says and not what a 404 does.
 */
export const ERROR_RULES: Readonly<Record<ErrorCode, ErrorRule>> = {
  ROUTE_UNKNOWN: {
    status: 404,
    ociCode: 'NAME_UNKNOWN',
    proxyStatus: 'destination_not_found',
    sentence: 'no upstream serves this address',
    detail: true,
  },
  ROUTE_CONFLICT: {
    status: 400,
    ociCode: 'NAME_INVALID',
    sentence: 'the request names different upstreams',
    detail: true,
  },
  NAME_INVALID: { status: 400, ociCode: 'NAME_INVALID', sentence: 'invalid repository name', detail: true },
  ENDPOINT_UNKNOWN: {
    status: 404,
    ociCode: 'NAME_UNKNOWN',
    sentence: 'nothing of the API has this path',
    detail: true,
  },
  DIGEST_INVALID: { status: 400, ociCode: 'DIGEST_INVALID', sentence: 'invalid digest', detail: true },
  RANGE_INVALID: { status: 416, ociCode: 'RANGE_INVALID', sentence: 'the range lies outside the blob', detail: true },
  PAGINATION_INVALID: { status: 400, ociCode: 'PAGINATION_NUMBER_INVALID', sentence: 'invalid page', detail: true },
  UNSUPPORTED: { status: 405, ociCode: 'UNSUPPORTED', sentence: 'this gateway only answers GET and HEAD' },
  BAD_REQUEST: { status: 400, ociCode: 'UNKNOWN', sentence: 'bad request', detail: true },
  DENIED_BY_RULE: {
    status: 403,
    ociCode: 'DENIED',
    proxyStatus: 'http_request_denied',
    sentence: "this gateway's rules do not allow the repository",
    detail: true,
  },
  UNAUTHENTICATED: { status: 401, ociCode: 'UNAUTHORIZED', sentence: 'log in to this gateway', detail: true },
  CLIENT_DENIED: {
    status: 403,
    ociCode: 'DENIED',
    proxyStatus: 'http_request_denied',
    sentence: 'this gateway does not serve you',
    detail: true,
  },
  LOGIN_THROTTLED: {
    status: 503,
    ociCode: 'UNAVAILABLE',
    proxyStatus: 'http_request_denied',
    retryAfter: 10,
    sentence: 'too many failed logins from your address',
  },
  MANIFEST_UNKNOWN: { status: 404, ociCode: 'MANIFEST_UNKNOWN', sentence: 'manifest unknown' },
  BLOB_UNKNOWN: { status: 404, ociCode: 'BLOB_UNKNOWN', sentence: 'blob unknown to this repository' },
  NAME_UNKNOWN: { status: 404, ociCode: 'NAME_UNKNOWN', sentence: 'repository unknown' },
  UPSTREAM_DENIED: {
    status: 404,
    ociCode: 'NAME_UNKNOWN',
    sentence: 'the upstream does not give this repository to this gateway, or has none of that name',
  },
  UPSTREAM_UNREACHABLE: {
    ...NON_ANSWER,
    proxyStatus: 'destination_unavailable',
    sentence: 'the upstream registry cannot be reached',
  },
  UPSTREAM_ERROR: {
    ...NON_ANSWER,
    proxyStatus: 'destination_unavailable',
    sentence: 'the upstream registry answered with an error',
  },
  UPSTREAM_THROTTLED: {
    status: 429,
    ociCode: 'TOOMANYREQUESTS',
    proxyStatus: 'destination_unavailable; received-status=429',
    retryAfter: 30,
    sentence: 'the upstream registry limits its requests',
  },
  UPSTREAM_INVALID: {
    status: 502,
    ociCode: 'UNKNOWN',
    proxyStatus: 'http_protocol_error',
    sentence: 'the upstream registry sent something that is not what was asked for',
  },
  CREDENTIALS_REJECTED: {
    ...NON_ANSWER,
    proxyStatus: 'proxy_configuration_error',
    sentence: "the upstream rejected this gateway's credentials",
  },
  REALM_REJECTED: {
    ...NON_ANSWER,
    proxyStatus: 'proxy_configuration_error',
    sentence: 'the upstream named a token server that this gateway does not trust',
  },
  ADDRESS_REFUSED: {
    ...NON_ANSWER,
    proxyStatus: 'destination_ip_prohibited',
    sentence: 'the upstream led to an address that this gateway does not call',
  },
  OFFLINE: {
    ...NON_ANSWER,
    proxyStatus: 'destination_unavailable',
    sentence: 'this upstream is switched to offline and the content is not held',
  },
  OVERLOADED: {
    status: 503,
    ociCode: 'UNAVAILABLE',
    proxyStatus: 'proxy_internal_response',
    retryAfter: 1,
    sentence: 'this gateway is busy',
  },
  STORE_FULL: {
    status: 503,
    ociCode: 'UNAVAILABLE',
    proxyStatus: 'proxy_internal_error',
    retryAfter: 30,
    sentence: "this gateway's disk is full",
  },
  STORE_FAILED: {
    status: 500,
    ociCode: 'UNKNOWN',
    proxyStatus: 'proxy_internal_error',
    sentence: "this gateway's storage failed",
  },
  STORE_UNUSABLE: {
    status: 500,
    ociCode: 'UNKNOWN',
    proxyStatus: 'proxy_internal_error',
    sentence: "this gateway's storage cannot be used",
  },
  CONFIG_INVALID: {
    status: 500,
    ociCode: 'UNKNOWN',
    proxyStatus: 'proxy_configuration_error',
    sentence: "this gateway's configuration is invalid",
  },
  PORT_UNAVAILABLE: {
    status: 500,
    ociCode: 'UNKNOWN',
    proxyStatus: 'proxy_configuration_error',
    sentence: 'this gateway cannot listen',
  },
}

const UNEXPECTED: ErrorRule = {
  status: 500,
  ociCode: 'UNKNOWN',
  proxyStatus: 'proxy_internal_error',
  sentence: 'this gateway failed',
}
/** A constant: made from Host it would let whoever sets that choose what a user is asked for. */
const CHALLENGE = 'Basic realm="Entrepot"'
const MAX_DETAIL_LENGTH = 300
const MAX_RETRY_AFTER_SECONDS = 3600

/** Value of `Proxy-Status` (RFC 9209) for an error; undefined where the client's request is all that is wrong. */
export function proxyStatus(code: ErrorCode | undefined): string | undefined {
  const { proxyStatus: error } = code === undefined ? UNEXPECTED : ERROR_RULES[code]
  return error === undefined ? undefined : `entrepot; error=${error}`
}

export interface ErrorReplyOptions {
  readonly requestId: string
  /** Further headers, such as the `content-range` of a 416. */
  readonly headers?: Readonly<Record<string, string>>
}

/** The reply to a failed request. Takes anything that can be thrown; what is not ours becomes 500 without a detail. */
export function errorReply(error: unknown, options: ErrorReplyOptions): Reply {
  const code = codeOf(error)
  const rule = code === undefined ? UNEXPECTED : ERROR_RULES[code]
  const said = rule.detail === true && error instanceof Error ? `: ${plain(error.message)}` : ''
  const body = Buffer.from(
    JSON.stringify({
      errors: [{ code: rule.ociCode, message: rule.sentence + said, detail: { requestId: options.requestId } }],
    }),
  )
  const headers = jsonHeaders(body.length)
  headers['cache-control'] = 'no-store'
  if (rule.status === 405) headers['allow'] = 'GET, HEAD'
  if (rule.status === 401) headers['www-authenticate'] = CHALLENGE
  const seconds = retryAfterSeconds(error, rule)
  if (seconds !== undefined) headers['retry-after'] = String(seconds)
  const proxy = proxyStatus(code)
  if (proxy !== undefined) headers['proxy-status'] = proxy
  const reply = { status: rule.status, headers: { ...headers, ...options.headers }, body }
  return error instanceof GatewayError && error.isRemembered ? { ...reply, outcome: 'negative' } : reply
}

/** Whole seconds, at least 1: clients read 0 as "at once". Only where trying again can help. */
function retryAfterSeconds(error: unknown, rule: ErrorRule): number | undefined {
  if (rule.retryAfter === undefined) return undefined
  const given = error instanceof GatewayError ? error.retryAfterMs : undefined
  const seconds = given === undefined || Number.isNaN(given) ? rule.retryAfter : Math.ceil(given / 1000)
  return Math.min(Math.max(1, seconds), MAX_RETRY_AFTER_SECONDS)
}

/** A message as it may go out: bounded, without control characters. JSON does the rest of the escaping. */
function plain(message: string): string {
  return message.replace(/[\p{Cc}\p{Cf}]/gu, ' ').slice(0, MAX_DETAIL_LENGTH)
}
