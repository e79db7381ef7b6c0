/** Whether a host is this machine, as far as its name alone tells. Pure. */
import { BlockList, isIP } from 'node:net'

/** `localhost`, names below it, 127.0.0.0/8 and ::1. A name that merely resolves there is not loopback: DNS may change. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1').toLowerCase()
  const family = isIP(bare)
  if (family === 0) return bare === 'localhost' || bare.endsWith('.localhost')
  const loopback = new BlockList()
  loopback.addSubnet('127.0.0.0', 8, 'ipv4')
  loopback.addAddress('::1', 'ipv6')
  return loopback.check(bare, family === 4 ? 'ipv4' : 'ipv6')
}
