import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseDuration, parseShare, parseSize } from '../../../src/config/units.ts'

describe('units', () => {
  const durations: [string, number | undefined][] = [
    ['250ms', 250],
    ['30s', 30_000],
    ['15m', 900_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    ['1.5h', 5_400_000],
    ['30 s', 30_000],
    ['0', 0],
    ['0s', 0],
    ['unlimited', Infinity],
    ['30', undefined],
    ['30S', undefined],
    ['30sec', undefined],
    ['-1s', undefined],
    ['1h30m', undefined],
    ['1e3s', undefined],
    ['', undefined],
    ['999999999999d', undefined],
    ['5constructor', undefined],
  ]
  for (const [text, expected] of durations) {
    it(`reads the duration ${JSON.stringify(text)} as ${expected}`, () => assert.equal(parseDuration(text), expected))
  }

  const sizes: [string, number | undefined][] = [
    ['512KiB', 524_288],
    ['10GiB', 10_737_418_240],
    ['1GB', 1_000_000_000],
    ['2MB', 2_000_000],
    ['1.5MiB', 1_572_864],
    ['100B', 100],
    ['1kB', 1000],
    ['0', 0],
    ['unlimited', Infinity],
    ['10G', undefined],
    ['10gib', undefined],
    ['10', undefined],
    ['99999999TiB', undefined],
  ]
  for (const [text, expected] of sizes) {
    it(`reads the size ${JSON.stringify(text)} as ${expected}`, () => assert.equal(parseSize(text), expected))
  }

  it('reads a share as a fraction of one, from 0% to 100%', () => {
    assert.deepEqual(['0%', '10%', '12.5 %', '100%'].map(parseShare), [0, 0.1, 0.125, 1])
    assert.deepEqual(['101%', '10', '-1%', '%', 'ten%'].map(parseShare), [
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ])
  })

  it('never throws, whatever the text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const parse of [parseDuration, parseSize, parseShare]) {
          const value = parse(text)
          if (value !== undefined && !(value >= 0)) return false
        }
        return true
      }),
    )
  })
})
