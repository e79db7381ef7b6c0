import assert from 'node:assert/strict'
import { test } from 'node:test'
import { networkMatcher, plainAddress } from '../../../src/access/networks.ts'

test('an address is in a network in whatever way it is written', () => {
  const rows: readonly (readonly [readonly string[], string, boolean])[] = [
    [[], '10.0.0.1', false],
    [['10.0.0.0/8'], '10.255.0.1', true],
    [['10.0.0.0/8'], '11.0.0.1', false],
    [['10.0.0.0/8'], '::ffff:10.0.0.1', true],
    [['10.0.0.0/8'], '::ffff:a00:1', true],
    [['10.0.0.0/8'], '::ffff:b00:1', false],
    [['10.0.0.0/8'], '::10.0.0.1', false],
    [['192.0.2.7'], '192.0.2.7', true],
    [['192.0.2.7/32'], '192.0.2.8', false],
    [['0.0.0.0/0'], '203.0.113.1', true],
    [['0.0.0.0/0'], '2001:db8::1', false],
    [['fd00::/8', '10.0.0.0/8'], 'fdff::1', true],
    [['2001:db8::/32'], '2001:0DB8:0000::0001', true],
    [['10.0.0.0/8'], '', false],
    [['10.0.0.0/8'], '010.0.0.1', false],
    [['10.0.0.0/8'], '10.0.0.1, 11.0.0.1', false],
    [['10.0.0.0/8'], '167772161', false],
    [['10.0.0.0/8'], 'unknown', false],
  ]
  for (const [networks, address, expected] of rows) {
    assert.equal(networkMatcher(networks)(plainAddress(address)), expected, `${address} in ${networks.join(' ')}`)
  }
})

test('a link-local peer loses the zone that names an interface', () => {
  assert.equal(plainAddress('fe80::1%eth0'), 'fe80::1')
  assert.equal(networkMatcher(['fe80::/10'])(plainAddress('fe80::1%eth0')), true)
})
