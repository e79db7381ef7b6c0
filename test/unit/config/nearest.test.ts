import assert from 'node:assert/strict'
import { it } from 'node:test'
import { nearestWord } from '../../../src/config/nearest.ts'

const KEYS = ['listen', 'admin', 'data', 'ledger', 'upstreams', 'keep', 'clients', 'externalUrl', 'trustedProxies']

const cases: [string, string | undefined][] = [
  ['lisen', 'listen'],
  ['litsen', 'listen'], // two neighbours swapped are one edit
  ['upstream', 'upstreams'],
  ['externalURL', 'externalUrl'],
  ['trusted_proxies', 'trustedProxies'],
  ['dta', 'data'],
  ['bandwidth', undefined],
  ['x', undefined],
  ['', undefined],
  ['l'.repeat(10_000), undefined],
]
for (const [typed, expected] of cases) {
  it(`takes ${JSON.stringify(typed.slice(0, 20))} for ${expected ?? 'nothing it knows'}`, () => {
    assert.equal(nearestWord(typed, KEYS), expected)
  })
}

it('suggests nothing when nothing is known', () => assert.equal(nearestWord('listen', []), undefined))
