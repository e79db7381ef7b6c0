/** One event per request: what was asked, what became of it. Nothing here is a secret: no query, no credential. */
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { plainAddress } from '../access/networks.ts'
import type { ErrorCode } from '../errors.ts'
import type { RegistryPath } from '../registry/path.ts'
import type { Via } from '../routing/route.ts'
import type { Outcome } from './reply.ts'

/** The fields of `request.done`, and what the request metrics count. Undefined where a request never got so far. */
export interface RequestDone {
  readonly requestId: string
  readonly method: string
  readonly upstream: string | undefined
  /** The pattern entry the upstream came from: metrics are labelled by it, since clients choose the hosts. */
  readonly pattern: string | undefined
  readonly via: Via | undefined
  readonly kind: RegistryPath['kind'] | undefined
  readonly repository: string | undefined
  readonly reference: string | undefined
  readonly status: number
  readonly outcome: Outcome | undefined
  /** Body bytes that left. */
  readonly bytes: number
  readonly ms: number
  readonly aborted: boolean
  /** The client was closed because it took too little. */
  readonly slow: boolean
  readonly client: string
  /** Who the client has proven to be: the user, or the first name of its certificate. */
  readonly principal: string | undefined
  readonly userAgent: string | undefined
  /** Our code when the request failed, also after the headers were out. */
  readonly code: ErrorCode | 'INTERNAL' | undefined
  /** The failure itself, for the log's own message: never shown to the client. */
  readonly error: unknown
}

const MAX_USER_AGENT_LENGTH = 200

/** The User-Agent as it may stand in a log: bounded, and without characters that move a terminal's cursor. */
export function loggedUserAgent(incoming: IncomingMessage): string | undefined {
  return incoming.headers['user-agent']?.slice(0, MAX_USER_AGENT_LENGTH).replace(/[\p{Cc}\p{Cf}]/gu, '')
}

/** Whether an address is one of the proxies whose `X-Forwarded-For` counts. */
export type IsTrustedProxy = (address: string) => boolean

/**
 * The client's address: the peer's, unless it is a trusted proxy; then the right-most address of `X-Forwarded-For` that is
 * none. What stands left of that was written by the client itself.
 */
export function clientAddress(incoming: IncomingMessage, isTrusted: IsTrustedProxy): string {
  let address = plainAddress(incoming.socket.remoteAddress ?? '')
  const forwarded = incoming.headers['x-forwarded-for']
  if (forwarded === undefined || !isTrusted(address)) return address
  for (const hop of (Array.isArray(forwarded) ? forwarded.join(',') : forwarded).split(',').toReversed()) {
    const next = plainAddress(hop.trim())
    if (isIP(next) === 0) return address
    address = next
    if (!isTrusted(address)) return address
  }
  return address
}
