import assert from 'node:assert/strict'
import type { LookupFunction } from 'node:net'
import { describe, it } from 'node:test'
import { codeOf } from '../../../src/errors.ts'
import { DialGuard, parseNetwork } from '../../../src/upstream/dialer.ts'

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/)
}

/** Hosts as a Location may spell them, read by the URL parser as they will be. */
const refusedHosts = words(`
  127.0.0.1 127.1 127.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001 0177.0.0.1 0 0.0.0.0 0x0 00
  127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 169.254.169.254
  0xA9FEA9FE 2852039166 0251.0376.0251.0376 100.64.0.1 100.100.100.200 100.127.255.255 192.0.0.192 192.0.0.1
  192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 192.88.99.1 224.0.0.1 239.255.255.255 240.0.0.1
  255.255.255.255 [::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1]
  [::ffff:169.254.169.254] [::127.0.0.1] [::10.0.0.1] [::ffff:0:10.0.0.1] [64:ff9b::7f00:1] [64:ff9b::10.0.0.1]
  [64:ff9b::a9fe:a9fe] [64:ff9b:1::1] [fc00::1] [fd00::1] [fd00:ec2::254] [fe80::1] [febf::1] [fec0::1]
  [ff02::1] [2002:7f00:1::] [2002:a00:1::1] [2001::1] [2001:db8::1] [100::1] [3fff::1] [5f00::1] [4000::1]
  [::ffff:0:0] localhost LOCALHOST localhost. a.localhost metadata.google.internal printer.local x.internal
  １２７.０.０.１ ①②⑦.⓪.⓪.① 127。0。0。1
`)

const allowedHosts = words(`
  1.1.1.1 8.8.8.8 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 169.253.0.1 11.0.0.1 [2606:4700::1111]
  [2a00:1450::1] [::ffff:8.8.8.8] [64:ff9b::8.8.8.8] cdn.example.com localhost.example.com
`)

function hostOf(text: string): string {
  return new URL(`http://${text}/`).hostname
}

describe('guarded dialer', () => {
  const guard = new DialGuard({ allowPrivate: [] })

  for (const text of refusedHosts) {
    it(`refuses ${text}`, () => {
      assert.throws(
        () => guard.checkHost(hostOf(text)),
        (error: unknown) => codeOf(error) === 'ADDRESS_REFUSED',
      )
    })
  }

  for (const text of allowedHosts) {
    it(`lets ${text} pass`, () => guard.checkHost(hostOf(text)))
  }

  it('a zone, garbage and nothing are not addresses', () => {
    for (const text of ['fe80::1%eth0', '2606:4700::1%lo', '1.2.3', '', 'x', '1.1.1.1 ', '01.1.1.1']) {
      assert.throws(() => guard.checkAddress(text, 'host'), text)
    }
  })

  it('allowed ranges open exactly themselves, in every spelling', () => {
    const open = new DialGuard({ allowPrivate: ['10.1.0.0/16', 'fd00:1::/32', '127.0.0.1'] })
    for (const text of ['10.1.2.3', '[::ffff:10.1.2.3]', '[fd00:1::5]', '127.0.0.1', '8.8.8.8'])
      open.checkHost(hostOf(text))
    for (const text of ['10.2.0.1', '127.0.0.2', '[fd00:2::1]', '[::1]', '169.254.169.254']) {
      assert.throws(() => open.checkHost(hostOf(text)), text)
    }
  })

  it('a range that does not parse is a configuration error', () => {
    for (const text of ['10.0.0.0/33', '10/8', 'corp', '', '::/129', '10.0.0.0/']) {
      assert.throws(
        () => parseNetwork(text),
        (error: unknown) => codeOf(error) === 'CONFIG_INVALID',
        text,
      )
    }
  })

  describe('names', () => {
    const answering = (...addresses: string[]): LookupFunction => {
      return (_name, _options, callback) =>
        callback(
          null,
          addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
        )
    }
    const resolve = (lookup: LookupFunction, all = true): Promise<unknown> =>
      new Promise((answer, reject) => {
        new DialGuard({ allowPrivate: [], lookup }).guardedLookup('cdn.example', { all }, (error, result, family) => {
          if (error === null) answer(all ? result : { address: result, family })
          else reject(error)
        })
      })
    const isRefused = (error: unknown): boolean => codeOf(error) === 'ADDRESS_REFUSED'

    it('public answers pass', async () => {
      assert.deepEqual(await resolve(answering('1.1.1.1', '2606:4700::1')), [
        { address: '1.1.1.1', family: 4 },
        { address: '2606:4700::1', family: 6 },
      ])
      assert.deepEqual(await resolve(answering('1.1.1.1'), false), { address: '1.1.1.1', family: 4 })
    })

    it('a private answer is refused', async () => {
      await assert.rejects(resolve(answering('10.0.0.1')), isRefused)
      await assert.rejects(resolve(answering('10.0.0.1'), false), isRefused)
    })

    it('one private address among public ones refuses them all, wherever it stands', async () => {
      await assert.rejects(resolve(answering('1.1.1.1', '127.0.0.1')), isRefused)
      await assert.rejects(resolve(answering('::1', '1.1.1.1')), isRefused)
      await assert.rejects(resolve(answering('1.1.1.1', '64:ff9b::a00:1'), false), isRefused)
    })

    it('a name without an address is refused, a failing resolver stays a DNS failure', async () => {
      await assert.rejects(resolve(answering()), isRefused)
      const failing: LookupFunction = (_name, _options, callback) =>
        callback(Object.assign(new Error('x'), { code: 'EAI_AGAIN' }), '')
      await assert.rejects(resolve(failing), { code: 'EAI_AGAIN' })
    })

    it('a resolver that answers with a single address is checked as well', async () => {
      const single: LookupFunction = (_name, _options, callback) => callback(null, '192.168.1.1', 4)
      await assert.rejects(resolve(single), isRefused)
    })
  })
})
