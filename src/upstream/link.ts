/** The `Link` header of a paginated list. Pure. */
import { GatewayError } from '../errors.ts'

const MAX_LINK_LENGTH = 8_192

/**
 * Query of the page that `rel="next"` names, without `?`; undefined when there is none. Only the query is kept: paths are
 * often wrong behind a prefix. UPSTREAM_INVALID when it leads to another host, where nobody said we should go.
 * Rule: RFC 8288, distribution-spec "Listing tags".
 */
export function nextQuery(headers: readonly string[], requestUrl: URL, subject: string): string | undefined {
  for (const header of headers) {
    if (header.length > MAX_LINK_LENGTH)
      throw new GatewayError('UPSTREAM_INVALID', `${subject}: the Link header is too long`)
    for (const [, target = '', params = ''] of header.matchAll(/<([^<>]*)>([^<]*)/g)) {
      if (!/;\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)/i.test(params)) continue
      if (!URL.canParse(target, requestUrl))
        throw new GatewayError('UPSTREAM_INVALID', `${subject}: the Link is no URL`)
      const url = new URL(target, requestUrl)
      if (url.host !== requestUrl.host) {
        throw new GatewayError('UPSTREAM_INVALID', `${subject}: the next page is on another host, ${url.host}`)
      }
      return url.search === '' ? undefined : url.search.slice(1)
    }
  }
  return undefined
}
