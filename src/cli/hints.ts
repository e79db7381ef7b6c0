/** What to do about a failed probe, by the code in its detail. Pure. */

const HINTS: readonly (readonly [RegExp, string])[] = [
  [/ENOTFOUND|EAI_NONAME/, 'DNS knows no such host: is url spelled right?'],
  [
    /EAI_AGAIN|ETIMEOUT|ESERVFAIL/,
    'the DNS server gave no answer; where only a proxy reaches the internet, set network.proxy or HTTPS_PROXY',
  ],
  [/ECONNREFUSED/, 'nothing listens there: is the port in url right, is the registry up?'],
  [
    /ETIMEDOUT|CONNECT_TIMEOUT|no answer within|EHOSTUNREACH|ENETUNREACH/,
    'it cannot be reached from here; behind a proxy set network.proxy or HTTPS_PROXY',
  ],
  [
    /UNABLE_TO_GET_ISSUER|UNABLE_TO_VERIFY|SELF_SIGNED/,
    'its certificate is of an authority that is not trusted here: name its PEM file under network.ca',
  ],
  [/CERT_HAS_EXPIRED/, 'its certificate has expired'],
  [/ALTNAME_INVALID/, 'its certificate is for other host names: is url spelled right?'],
  [/WRONG_VERSION_NUMBER|EPROTO/, 'it does not speak TLS there: does url need http://, or another port?'],
]

/** A sentence on what it probably means; undefined when the detail says all we know. */
export function hintFor(detail: string): string | undefined {
  return HINTS.find(([pattern]) => pattern.test(detail))?.[1]
}
