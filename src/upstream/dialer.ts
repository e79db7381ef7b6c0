/**
 * The guard of every outbound connection that nobody configured: redirect targets and token servers. It looks at what a
 * name resolves to when the socket is opened, not earlier, so that a name cannot change its mind in between. Fails closed.
 */
import { lookup as systemLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { GatewayError } from '../errors.ts'

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Network = [Address, number]

/** Names that mean this machine or a cloud's metadata service, whatever a resolver or a proxy says. */
const FORBIDDEN_NAMES = /^(?:localhost|.+\.localhost|metadata|metadata\.google\.internal|.+\.internal|.+\.local)$/

export interface DialGuardOptions {
  /** CIDRs that may be dialled although they are not public. */
  readonly allowPrivate: readonly string[]
  /** Default: the system's resolver. */
  readonly lookup?: LookupFunction | undefined
}

/** Decides which addresses may be dialled. Rules: faults.md R50-R52. */
export class DialGuard {
  readonly #allowed: readonly Network[]
  readonly #lookup: LookupFunction

  constructor(options: DialGuardOptions) {
    this.#allowed = options.allowPrivate.map(parseNetwork)
    this.#lookup = options.lookup ?? systemLookup
  }

  /** The resolver as given, unfiltered: for what the operator configured. */
  get openLookup(): LookupFunction {
    return this.#lookup
  }

  /**
   * Checks what can be seen in a host of a URL without asking a resolver; an address literal never reaches `lookup`.
   * Throws ADDRESS_REFUSED.
   */
  checkHost(hostname: string): void {
    const bare = hostname.replace(/^\[|\]$/g, '')
    if (isIP(bare) !== 0) return this.checkAddress(bare, hostname)
    // A URL parser has already turned 0x7f.1, 017700000001 and 2130706433 into dotted form; what is left here is a name.
    const name = bare.toLowerCase().replace(/\.$/, '')
    if (this.#allowed.length === 0 && FORBIDDEN_NAMES.test(name)) throw refused(hostname, 'the name is a local one')
  }

  /** Throws ADDRESS_REFUSED unless `address` is public or allowed. */
  checkAddress(address: string, hostname: string): void {
    if (!this.#permits(address)) throw refused(hostname, 'its address is not public')
  }

  /**
   * A `lookup` for sockets that fails when any of the answers is refused: a mixed answer is how rebinding looks, and
   * picking the good half would leave the choice to the attacker's next answer.
   */
  readonly guardedLookup: LookupFunction = (hostname, options, callback) => {
    const all: LookupOptions & { all: true } = { ...options, all: true }
    this.#lookup(hostname, all, (error, answer, family) => {
      if (error !== null) return callback(error, '', 0)
      const addresses: LookupAddress[] = Array.isArray(answer) ? answer : [{ address: answer, family: family ?? 4 }]
      const [first] = addresses
      try {
        if (first === undefined) throw refused(hostname, 'its name has no address')
        for (const { address } of addresses) this.checkAddress(address, hostname)
      } catch (refusal) {
        return callback(refusal instanceof Error ? refusal : new Error(String(refusal)), '', 0)
      }
      if (options.all === true) return callback(null, addresses)
      callback(null, first.address, first.family)
    })
  }

  #permits(text: string): boolean {
    // A zone (`fe80::1%eth0`) only exists on a link.
    if (text.includes('%') || isIP(text) === 0) return false
    const address = embedded(ipaddr.parse(text))
    return this.#allowed.some((network) => contains(network, address)) || isPublic(address)
  }
}

/** The IPv4 address inside a mapped, compatible or NAT64 form; any other address as it is. */
function embedded(address: Address): Address {
  if (!(address instanceof ipaddr.IPv6)) return address
  const bytes = address.toByteArray()
  const isZero = (from: number, to: number): boolean => bytes.slice(from, to).every((byte) => byte === 0)
  const isMapped = isZero(0, 10) && bytes[10] === 0xff && bytes[11] === 0xff
  const isTranslated = isZero(0, 8) && bytes[8] === 0xff && bytes[9] === 0xff && isZero(10, 12)
  const isCompatible = isZero(0, 12) && !isZero(12, 15)
  const isNat64 = bytes[1] === 0x64 && bytes[2] === 0xff && bytes[3] === 0x9b && bytes[0] === 0 && isZero(4, 12)
  return isMapped || isTranslated || isCompatible || isNat64 ? new ipaddr.IPv4(bytes.slice(12)) : address
}

/**
 * `unicast` is what the library calls an address of no special range; every special one is refused, 6to4 and Teredo
 * included (they embed an address too, but nobody serves images there). Only 2000::/3 is in use as global IPv6.
 */
function isPublic(address: Address): boolean {
  if (address.range() !== 'unicast') return false
  return address instanceof ipaddr.IPv4 || ((address.parts[0] ?? 0) & 0xe000) === 0x2000
}

function contains(network: Network, address: Address): boolean {
  const [base, bits] = network
  if (address instanceof ipaddr.IPv4) return base instanceof ipaddr.IPv4 && address.match(base, bits)
  return base instanceof ipaddr.IPv6 && address.match(base, bits)
}

/** A CIDR or a single address. Throws CONFIG_INVALID: a range that does not parse must not silently allow nothing. */
export function parseNetwork(text: string): Network {
  // The library also reads `10/8` and octal spellings, each by its own idea of what they mean.
  if (isIP(text.split('/')[0] ?? '') !== 0 && ipaddr.isValidCIDR(text)) return ipaddr.parseCIDR(text)
  if (isIP(text) !== 0) {
    const address = ipaddr.parse(text)
    return [address, address instanceof ipaddr.IPv4 ? 32 : 128]
  }
  throw new GatewayError('CONFIG_INVALID', `"${text}" is no address range; write it like 10.0.0.0/8 or fd00::/8`)
}

function refused(hostname: string, reason: string): GatewayError {
  return new GatewayError(
    'ADDRESS_REFUSED',
    `connect to ${hostname}: refused, ${reason}; list its range under network.allowPrivate if it is meant to be reached`,
  )
}
