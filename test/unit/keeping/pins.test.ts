import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { globMatcher } from '../../../src/access/globs.ts'
import { codeOf, GatewayError } from '../../../src/errors.ts'
import { Pins } from '../../../src/keeping/pins.ts'
import { aDigest, aRepository, aTag } from '../../conformance/ledger.ts'

class MemoryPins {
  pins: readonly string[] = []

  async readPins(): Promise<string[]> {
    await new Promise((resolve) => setImmediate(resolve))
    return [...this.pins]
  }

  async writePins(pins: readonly string[]): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    this.pins = pins
  }
}

describe('pins', () => {
  const digest = aDigest('image')
  const cases: readonly (readonly [string, string, string, boolean])[] = [
    ['acme/base:1.*', 'acme/base', '1.2', true],
    ['acme/base:1.*', 'acme/base', '2.0', false],
    ['acme/base', 'acme/base', 'anything', true],
    ['acme/base', 'acme/base2', 'anything', false],
    ['acme/*', 'acme/base', '1', true],
    ['acme/*', 'acme/deep/base', '1', false],
    ['acme/**', 'acme/deep/base', '1', true],
    ['**:stable', 'acme/deep/base', 'stable', true],
    [`acme/base@${digest}`, 'acme/base', '1', true],
    [`acme/base@${aDigest('other')}`, 'acme/base', '1', false],
    ['acme/base:1', 'acme/base', '', false],
  ]
  for (const [pin, repository, tag, isPinned] of cases) {
    it(`${pin} ${isPinned ? 'keeps' : 'does not keep'} ${repository}:${tag}`, async () => {
      const matcher = await new Pins(new MemoryPins(), [pin], globMatcher).matcher()
      const tags = tag === '' ? [] : [aTag(tag)]
      assert.equal(matcher({ repository: aRepository(repository), digest, tags }), isPinned)
    })
  }

  it('added at the same time are all kept; twice is once', async () => {
    const store = new MemoryPins()
    const pins = new Pins(store, [], globMatcher)
    const added = await Promise.all(['a', 'b', 'a', 'c'].map((pin) => pins.add(pin)))
    assert.deepEqual(added, [true, true, false, true])
    assert.deepEqual([await pins.remove('b'), await pins.remove('b')], [true, false])
    assert.deepEqual(store.pins, ['a', 'c'])
  })

  it('that cannot be read are told, not taken for none', async () => {
    const store = new MemoryPins()
    store.readPins = () => Promise.reject(new GatewayError('STORE_FAILED', 'pins.json is no JSON'))
    await assert.rejects(new Pins(store, [], globMatcher).matcher(), (error) => codeOf(error) === 'STORE_FAILED')
  })
})
