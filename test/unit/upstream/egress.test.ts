import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { proxyFor } from '../../../src/upstream/egress.ts'

const rows: readonly (readonly [url: string, noProxy: string, direct: boolean])[] = [
  ['https://ghcr.io/', '', false],
  ['https://ghcr.io/', '*', true],
  ['https://ghcr.io/', 'ghcr.io', true],
  ['https://GHCR.io/', 'Ghcr.IO', true],
  ['https://a.ghcr.io/', 'ghcr.io', true],
  ['https://xghcr.io/', 'ghcr.io', false],
  ['https://ghcr.io/', '.ghcr.io', false],
  ['https://a.ghcr.io/', '.ghcr.io', true],
  ['https://a.ghcr.io/', '*.ghcr.io', true],
  ['https://ghcr.io/', 'ghcr.io:443', true],
  ['https://ghcr.io:8443/', 'ghcr.io:443', false],
  ['https://ghcr.io/', 'quay.io, ghcr.io', true],
  ['https://ghcr.io/', 'quay.io ghcr.io', true],
  ['http://10.1.2.3:5000/', '10.0.0.0/8', true],
  ['http://11.1.2.3:5000/', '10.0.0.0/8', false],
  ['http://10.1.2.3:5000/', '10.1.2.3', true],
  ['http://10.1.2.3:5000/', '10.1.2.3:5000', true],
  ['http://10.1.2.3:5000/', '10.1.2.3:80', false],
  ['http://10.1.2.3:5000/', '10.1.2', false],
  ['http://[fd00::5]:5000/', 'fd00::/8', true],
  ['http://[fd00::5]:5000/', 'fd00::5', true],
  ['http://[fd00::5]:5000/', '[fd00::5]:5000', true],
  ['http://[::ffff:10.0.0.1]/', '10.0.0.0/8', true],
  ['http://ten.example/', '10.0.0.0/8', false],
  ['https://ghcr.io/', ',,', false],
  ['https://ghcr.io/', '.', false],
]

describe('egress proxy', () => {
  for (const [url, noProxy, direct] of rows) {
    it(`${url} with NO_PROXY=${noProxy} goes ${direct ? 'directly' : 'by the proxy'}`, () => {
      const proxy = proxyFor(new URL(url), { httpProxy: 'http://p:3128', httpsProxy: 'http://p:3128', noProxy })
      assert.equal(proxy, direct ? undefined : 'http://p:3128')
    })
  }

  it('each scheme has its own proxy, and none is direct', () => {
    const proxies = { httpProxy: 'plain:1', httpsProxy: 'https://secure:2' }
    assert.equal(proxyFor(new URL('http://a/'), proxies), 'http://plain:1')
    assert.equal(proxyFor(new URL('https://a/'), proxies), 'https://secure:2')
    assert.equal(proxyFor(new URL('https://a/'), { httpProxy: 'plain:1' }), undefined)
    assert.equal(proxyFor(new URL('https://a/'), { httpsProxy: '' }), undefined)
  })
})
