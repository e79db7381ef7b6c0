/** Failures below HTTP, told apart by what they mean for a second try. */

export type FailureKind = 'dns' | 'connect' | 'tls' | 'timeout' | 'reset' | 'protocol' | 'proxy'

const KINDS: Readonly<Record<string, FailureKind>> = {
  ENOTFOUND: 'dns',
  EAI_AGAIN: 'dns',
  EAI_FAIL: 'dns',
  EAI_NODATA: 'dns',
  EAI_NONAME: 'dns',
  ENODATA: 'dns',
  ESERVFAIL: 'dns',
  ETIMEOUT: 'dns',
  ECONNREFUSED: 'connect',
  EHOSTUNREACH: 'connect',
  ENETUNREACH: 'connect',
  EADDRNOTAVAIL: 'connect',
  EHOSTDOWN: 'connect',
  ENETDOWN: 'connect',
  EACCES: 'connect',
  EPERM: 'connect',
  ETIMEDOUT: 'timeout',
  UND_ERR_CONNECT_TIMEOUT: 'timeout',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  ECONNRESET: 'reset',
  ECONNABORTED: 'reset',
  EPIPE: 'reset',
  UND_ERR_SOCKET: 'reset',
  UND_ERR_DESTROYED: 'reset',
  UND_ERR_CLOSED: 'reset',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'reset',
  UND_ERR_HEADERS_OVERFLOW: 'protocol',
  UND_ERR_INVALID_ARG: 'protocol',
  UND_ERR_PRX_TLS: 'proxy',
  UND_ERR_PRX_CONN: 'proxy',
  UND_ERR_ABORTED: 'reset',
  EPROTO: 'tls',
  HOSTNAME_MISMATCH: 'tls',
  OUT_OF_MEM: 'tls',
}
const TLS_CODE =
  /^(?:ERR_TLS|ERR_SSL|CERT_|CRL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_)/

export class TransportError extends Error {
  override readonly name = 'TransportError'
  readonly kind: FailureKind

  constructor(kind: FailureKind, message: string, cause?: unknown) {
    super(message, { cause })
    this.kind = kind
  }

  /** Whatever a socket, a resolver, TLS or undici threw. The message holds the code only: no URL, no header. */
  static from(error: unknown): TransportError {
    if (error instanceof TransportError) return error
    const status = proxyStatus(error)
    if (status !== undefined) return new TransportError('proxy', `${status} from the proxy`, error)
    const code = codeText(error)
    return new TransportError(kindOf(code), code, error)
  }
}

/** What a proxy said instead of opening a tunnel; undici tells it in the text alone. */
function proxyStatus(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  if (error.code !== 'UND_ERR_ABORTED' && error.code !== 'UND_ERR_INVALID_ARG') return undefined
  return /^Proxy (?:response \(|Authentication Required \()(\d{3})\)/.exec(error.message)?.[1]
}

function kindOf(code: string): FailureKind {
  if (Object.hasOwn(KINDS, code)) return KINDS[code] ?? 'reset'
  if (TLS_CODE.test(code)) return 'tls'
  return code.startsWith('HPE_') ? 'protocol' : 'reset'
}

function codeText(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code !== '')
    return error.code
  // undici gives its parser's errors a code only where the parser has one.
  if (error instanceof Error && error.name === 'HTTPParserError') return 'HPE_INVALID'
  if (error instanceof AggregateError && error.errors.length > 0) return codeText(error.errors[0])
  return error instanceof Error ? error.name : 'unknown failure'
}
