import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseAuthority, parseTarget } from '../../../src/routing/authority.ts'

test('a target is taken apart without decoding anything', () => {
  assert.deepEqual(parseTarget('/v2/%61/x?ns=a%3A1', ['gw:5000']), {
    host: 'gw:5000',
    path: '/v2/%61/x',
    query: 'ns=a%3A1',
  })
  assert.deepEqual(parseTarget('http://gw:5000/v2/?a', ['GW:5000']), { host: 'GW:5000', path: '/v2/', query: 'a' })
  assert.deepEqual(parseTarget('http://gw', ['gw']), { host: 'gw', path: '/', query: '' })
})

test('a request with not exactly one Host, or with two different ones, is none', () => {
  const rows: readonly (readonly [string, readonly string[]])[] = [
    ['/v2/', []],
    ['/v2/', ['gw', 'gw']],
    ['/v2/', ['gw/x']],
    ['http://other/v2/', ['gw']],
    ['http://gw:1/v2/', ['gw:2']],
    ['http://gw@other/v2/', ['gw']],
    ['http:///v2/', ['gw']],
    ['ftp://gw/v2/', ['gw']],
    ['v2/', ['gw']],
    ['*', ['gw']],
    ['/v2\\x', ['gw']],
    ['/v2/#x', ['gw']],
    ['/v2/ x', ['gw']],
    ['/v2/\u00e9', ['gw']],
    ['', ['gw']],
  ]
  for (const [target, hosts] of rows) assert.equal(parseTarget(target, hosts), undefined, `${target} ${hosts.join()}`)
})

test('whatever parses as an authority is safe to put into a URL', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.webAuthority(),
        fc.ipV6().map((ip) => `[${ip}]:5000`),
      ),
      (text) => {
        const authority = parseAuthority(text)
        if (authority === undefined) return
        assert.match(authority.name, /^(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])$/)
        assert.equal(authority.port === undefined || (authority.port > 0 && authority.port < 65_536), true)
      },
    ),
    { numRuns: 2000 },
  )
})
