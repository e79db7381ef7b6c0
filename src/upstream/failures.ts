/** What a final 4xx means: an answer of the registry, or something that only looks like one. */
import { GatewayError, type ErrorCode } from '../errors.ts'
import { MAX_ERROR_BYTES } from './body.ts'
import type { RegistryReply } from './attempt.ts'
import type { RequestKind } from './options.ts'
import { mediaTypeOf } from './replies.ts'
import type { ReplyHeaders } from './transport.ts'

/**
 * Whether a refusal without a body can be believed: it says it is a registry's, or at least is not announced as a page
 * of something else. Otherwise only a GET can tell.
 */
export function isCredibleHead(headers: ReplyHeaders): boolean {
  const type = mediaTypeOf(headers)
  return headers.get('docker-distribution-api-version') !== undefined || type === undefined || isJson(type)
}

/**
 * The error for a status that is no success; reads and drops the body, which reaches nobody.
 *
 * An ingress that has lost its backend, a login page and a web filter answer 404 and 403 too, in HTML or plain text. So a
 * 404 is believed when its body is JSON or empty or the reply carries the registry's version header, a 403 when its body
 * is a registry's JSON; the rest is UPSTREAM_ERROR, which never makes anybody think that content is gone. The same holds
 * for what a redirect's target says about rights, for a 404 of one that is no registry, and for everything said while a
 * configured credential is not in use.
 */
export async function refusalOf(reply: RegistryReply, kind: RequestKind, subject: string): Promise<GatewayError> {
  const { status, headers } = reply
  const body = await readErrorBody(reply)
  const error = (code: ErrorCode, what: string): GatewayError => new GatewayError(code, `${subject}: ${what}`)
  const isRegistry = body.code !== undefined || headers.get('docker-distribution-api-version') !== undefined
  switch (status) {
    case 404:
    case 410:
    case 401:
    case 403:
      break
    case 416:
      return error('UPSTREAM_INVALID', '416, it says the blob is shorter than asked')
    default:
      return error('UPSTREAM_ERROR', `unexpected status ${status}`)
  }
  if (reply.authorization?.isFallback === true) {
    return error('CREDENTIALS_REJECTED', `${status} to the anonymous caller, the configured credential was refused`)
  }
  // A CDN that has lost an object says nothing about the registry's content. Some registries redirect to another
  // registry (registry.k8s.io), whose 404 in a registry's form is an answer; its denial is not one to our credentials.
  const isGone = status === 404 || status === 410
  if (reply.hasLeft && !(isGone && isRegistry)) {
    return error('UPSTREAM_ERROR', `${status} from ${reply.url.host}, where a redirect led`)
  }
  if (isGone) {
    if (!isRegistry && !body.isJson && !body.isEmpty)
      return error('UPSTREAM_ERROR', `${status} with a page that no registry writes`)
    return error(body.code === 'NAME_UNKNOWN' ? 'NAME_UNKNOWN' : unknownCode(kind), String(status))
  }
  if (body.code !== undefined || (status === 401 && headers.get('www-authenticate') !== undefined)) {
    return new GatewayError('UPSTREAM_DENIED', `${subject}: ${status}`, { upstreamCode: body.code })
  }
  return error('UPSTREAM_ERROR', `${status} with a body that no registry writes`)
}

function unknownCode(kind: RequestKind): ErrorCode {
  if (kind === 'blob') return 'BLOB_UNKNOWN'
  return kind === 'manifest' ? 'MANIFEST_UNKNOWN' : 'NAME_UNKNOWN'
}

interface ErrorBody {
  /** The first code of an OCI error body. */
  readonly code: string | undefined
  readonly isJson: boolean
  readonly isEmpty: boolean
}

async function readErrorBody({ body, headers }: RegistryReply): Promise<ErrorBody> {
  let text: string
  try {
    text = (await body.readCapped(MAX_ERROR_BYTES, headers.get('content-encoding'), '')).toString('utf8').trim()
  } catch {
    body.cancel()
    return { code: undefined, isJson: false, isEmpty: false }
  }
  try {
    const parsed: unknown = JSON.parse(text)
    return { code: firstCode(parsed), isJson: typeof parsed === 'object' && parsed !== null, isEmpty: false }
  } catch {
    return { code: undefined, isJson: false, isEmpty: text === '' }
  }
}

function firstCode(parsed: unknown): string | undefined {
  if (typeof parsed !== 'object' || parsed === null || !('errors' in parsed) || !Array.isArray(parsed.errors))
    return undefined
  const first: unknown = parsed.errors[0]
  if (typeof first !== 'object' || first === null || !('code' in first)) return undefined
  return typeof first.code === 'string' ? first.code : undefined
}

function isJson(type: string): boolean {
  return type === 'application/json' || type.endsWith('+json')
}
