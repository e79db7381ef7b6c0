import assert from 'node:assert/strict'
import { it } from 'node:test'
import { parseAddress, parseNetwork } from '../../../src/config/addresses.ts'

const addresses: [string, { host: string | undefined; port: number } | undefined][] = [
  ['127.0.0.1:5000', { host: '127.0.0.1', port: 5000 }],
  [':5000', { host: undefined, port: 5000 }],
  ['[::1]:5000', { host: '::1', port: 5000 }],
  ['gateway.example:0', { host: 'gateway.example', port: 0 }],
  ['::1:5000', undefined],
  ['[gateway]:5000', undefined],
  ['127.0.0.1', undefined],
  ['127.0.0.1:65536', undefined],
  ['http://127.0.0.1:5000', undefined],
]
for (const [text, expected] of addresses) {
  it(`reads ${text} as ${JSON.stringify(expected)}`, () => assert.deepEqual(parseAddress(text), expected))
}

const networks: [string, string | undefined][] = [
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['192.0.2.7', '192.0.2.7/32'],
  ['fd00::/8', 'fd00::/8'],
  ['::1', '::1/128'],
  ['10.0.0.0/33', undefined],
  ['10.0.0.0/', undefined],
  ['10.0.0.0/8/8', undefined],
  ['example.org', undefined],
]
for (const [text, expected] of networks) {
  it(`takes ${text} for ${expected ?? 'no network'}`, () => assert.equal(parseNetwork(text), expected))
}
