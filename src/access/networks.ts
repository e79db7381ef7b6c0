/** Lists of networks, asked whether an address lies in one of them. */
import { BlockList, isIP } from 'node:net'

/** Whether an address lies in a list of networks. What is no address lies in none. */
export type NetworkMatcher = (address: string) => boolean

/** Makes the check from addresses and CIDRs; entries that are neither are skipped, the config has refused them already. */
export function networkMatcher(networks: readonly string[]): NetworkMatcher {
  if (networks.length === 0) return () => false
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits] = network.split('/')
    const family = familyOf(address)
    if (family === undefined) continue
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return (address) => {
    const family = familyOf(address)
    return family !== undefined && list.check(address, family)
  }
}

/** One spelling an address: no zone of an interface, and an IPv4 peer of a socket that listens on IPv6 too as IPv4. */
export function plainAddress(address: string): string {
  const [bare = ''] = address.split('%')
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(bare) ? bare.slice('::ffff:'.length) : bare
}

function familyOf(address: string): 'ipv4' | 'ipv6' | undefined {
  const version = isIP(address)
  return version === 4 ? 'ipv4' : version === 6 ? 'ipv6' : undefined
}
