/** What to do about a failed probe, by the code of the failure. Pure. */

const TLS_ROOTS = 'its certificate is of an authority that is not trusted here: name its PEM file under network.ca'
const NO_WAY = 'it cannot be reached from here; behind a proxy set network.proxy or HTTPS_PROXY'
const NO_DNS =
  'the DNS server gave no answer; where only a proxy reaches the internet, set network.proxy or HTTPS_PROXY'
const NO_TLS = 'it does not speak TLS there: does url need http://, or another port?'
const NO_NAME = 'DNS knows no such host: is url spelled right?'

const HINTS: Readonly<Record<string, string>> = {
  ENOTFOUND: NO_NAME,
  EAI_NONAME: NO_NAME,
  EAI_AGAIN: NO_DNS,
  ETIMEOUT: NO_DNS,
  ESERVFAIL: NO_DNS,
  ECONNREFUSED: 'nothing listens there: is the port in url right, is the registry up?',
  ETIMEDOUT: NO_WAY,
  UND_ERR_CONNECT_TIMEOUT: NO_WAY,
  EHOSTUNREACH: NO_WAY,
  ENETUNREACH: NO_WAY,
  NO_ANSWER: NO_WAY,
  UNABLE_TO_GET_ISSUER_CERT: TLS_ROOTS,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: TLS_ROOTS,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: TLS_ROOTS,
  SELF_SIGNED_CERT_IN_CHAIN: TLS_ROOTS,
  DEPTH_ZERO_SELF_SIGNED_CERT: TLS_ROOTS,
  CERT_HAS_EXPIRED: 'its certificate has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for other host names: is url spelled right?',
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
  EPROTO: NO_TLS,
}

/** A sentence on what it probably means; undefined when the detail says all we know. */
export function hintFor(code: string | undefined): string | undefined {
  return code !== undefined && Object.hasOwn(HINTS, code) ? HINTS[code] : undefined
}
