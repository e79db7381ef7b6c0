/** Addresses to listen at, and networks. Pure. */
import { isIP } from 'node:net'

export interface Address {
  /** Undefined: all interfaces. */
  readonly host: string | undefined
  /** 0: any free port. */
  readonly port: number
}

/** Parses `host:port`, `[IPv6]:port` and `:port`; anything else is undefined. */
export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]*)):(\d{1,5})$/i.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65_535 || (match[1] !== undefined && isIP(match[1]) !== 6)) return undefined
  return { host: match[1] ?? (match[2] === '' ? undefined : match[2]), port }
}

/** Parses `address/bits`, or a lone address, to `address/bits`; anything else is undefined. */
export function parseNetwork(text: string): string | undefined {
  const [address = '', bits, ...rest] = text.split('/')
  const family = isIP(address)
  if (family === 0 || rest.length > 0) return undefined
  const widest = family === 4 ? 32 : 128
  if (bits === undefined) return `${address}/${widest}`
  return /^\d{1,3}$/.test(bits) && Number(bits) <= widest ? text : undefined
}
