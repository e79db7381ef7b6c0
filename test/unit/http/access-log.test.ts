import assert from 'node:assert/strict'
import { createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { networkMatcher } from '../../../src/access/networks.ts'
import { clientAddress } from '../../../src/http/access-log.ts'

async function incomingWith(forwarded: string | undefined): Promise<IncomingMessage> {
  const seen = Promise.withResolvers<IncomingMessage>()
  const server = createServer((incoming, outgoing) => {
    // Taken before the socket is gone.
    seen.resolve({
      headers: incoming.headers,
      socket: { remoteAddress: incoming.socket.remoteAddress },
    } as IncomingMessage)
    outgoing.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  get(
    { port, host: '127.0.0.1', agent: false, headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded } },
    (reply) => reply.resume(),
  )
  const incoming = await seen.promise
  server.close()
  return incoming
}

test('X-Forwarded-For counts only behind trusted proxies, and only to the right of what the client wrote', async () => {
  const rows: readonly (readonly [string | undefined, string[], string])[] = [
    [undefined, ['127.0.0.0/8'], '127.0.0.1'],
    ['1.2.3.4', [], '127.0.0.1'],
    ['1.2.3.4', ['127.0.0.0/8'], '1.2.3.4'],
    ['6.6.6.6, 1.2.3.4', ['127.0.0.1'], '1.2.3.4'],
    ['6.6.6.6, 1.2.3.4, 10.0.0.1', ['127.0.0.1', '10.0.0.0/8'], '1.2.3.4'],
    ['10.0.0.2, 10.0.0.1', ['127.0.0.1', '10.0.0.0/8'], '10.0.0.2'],
    ['6.6.6.6, garbage', ['127.0.0.1'], '127.0.0.1'],
    ['6.6.6.6, garbage, 10.0.0.1', ['127.0.0.1', '10.0.0.0/8'], '10.0.0.1'],
    ['::ffff:1.2.3.4', ['127.0.0.1'], '1.2.3.4'],
    ['2001:db8::1', ['127.0.0.1', 'fd00::/8'], '2001:db8::1'],
  ]
  for (const [forwarded, networks, expected] of rows) {
    assert.equal(clientAddress(await incomingWith(forwarded), networkMatcher(networks)), expected, String(forwarded))
  }
})
