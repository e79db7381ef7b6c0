/** Where a redirect may lead, and how long a signed address lives. Pure. */
import { GatewayError } from '../errors.ts'

/** Honest chains are short: registry, regional registry, storage. */
export const MAX_REDIRECTS = 5

const MAX_LOCATION_LENGTH = 16_384
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308]
const DEFAULT_LIFETIME_MS = 60_000
const EXPIRY_MARGIN_MS = 10_000

export function isRedirect(status: number): boolean {
  return REDIRECTS.includes(status)
}

/**
 * The address a redirect from `from` names. UPSTREAM_INVALID unless it is http or https without user information, and
 * never http after https: a signed URL is a credential and a body on a plain line is anybody's. `subject` is for the message.
 */
export function planRedirect(from: URL, location: string | undefined, subject: string): URL {
  const refuse = (reason: string): GatewayError =>
    new GatewayError('UPSTREAM_INVALID', `${subject}: redirect refused, ${reason}`)
  if (location === undefined || location === '') throw refuse('it names no Location')
  if (location.length > MAX_LOCATION_LENGTH) throw refuse('its Location is too long')
  if (!URL.canParse(location, from)) throw refuse('its Location is not a URL')
  const target = new URL(location, from)
  if (target.protocol !== 'https:' && target.protocol !== 'http:')
    throw refuse(`it leads to a ${target.protocol} address`)
  if (from.protocol === 'https:' && target.protocol === 'http:') throw refuse('it leads from https to http')
  if (target.username !== '' || target.password !== '') throw refuse('its Location holds user information')
  target.hash = ''
  return target
}

/**
 * Epoch milliseconds until which a signed URL may be used again, a little before its signature expires. Reads the
 * parameters of S3 and GCS (relative), CloudFront and S3 v2 (`Expires`), and Azure (`se`); others get a minute.
 */
export function usableUntil(url: URL, now: number): number {
  const relative = url.searchParams.get('X-Amz-Expires') ?? url.searchParams.get('X-Goog-Expires')
  if (relative !== null && /^\d{1,7}$/.test(relative)) return now + Number(relative) * 1_000 - EXPIRY_MARGIN_MS
  const absolute = url.searchParams.get('Expires')
  if (absolute !== null && /^\d{9,11}$/.test(absolute)) return Number(absolute) * 1_000 - EXPIRY_MARGIN_MS
  const azure = Date.parse(url.searchParams.get('se') ?? '')
  return Number.isNaN(azure) ? now + DEFAULT_LIFETIME_MS : azure - EXPIRY_MARGIN_MS
}
