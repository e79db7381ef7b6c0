import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { Intervals } from '../../../../src/async/intervals.ts'
import { digestOf } from '../../../../src/oci/digest.ts'
import { formatIntervalMap, parseIntervalMap } from '../../../../src/store/fs/interval-map.ts'

const digest = digestOf(Buffer.from('map'))
const interval = fc
  .tuple(fc.nat(1_000_000), fc.integer({ min: 1, max: 10_000 }))
  .map(([from, length]) => ({ from, to: from + length }))

it('a saved map says what was held', () => {
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 50 }), (list) => {
      const held = new Intervals(list)
      const content = formatIntervalMap(digest, held.toArray())
      assert.ok(content !== undefined)
      assert.deepEqual(parseIntervalMap(content, digest, 2_000_000)?.toArray(), held.toArray())
    }),
  )
})

it('a map with one byte changed is refused or says the same', () => {
  const held = new Intervals([
    { from: 0, to: 1_000_000 },
    { from: 2_000_000, to: 3_000_000 },
  ])
  const content = formatIntervalMap(digest, held.toArray())
  assert.ok(content !== undefined)
  for (let at = 0; at < content.byteLength; at++) {
    for (const flip of [1, 2, 4, 8, 16]) {
      const changed = Buffer.from(content)
      changed[at] = (changed[at] ?? 0) ^ flip
      const parsed = parseIntervalMap(changed, digest, 3_000_000)
      if (parsed !== undefined) assert.deepEqual(parsed.toArray(), held.toArray())
    }
  }
})

it('no garbage makes it throw', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.json().map((text) => Buffer.from(text)),
      ),
      (bytes) => {
        assert.equal(parseIntervalMap(bytes, digest, 100), undefined)
      },
    ),
  )
})

it('a map beyond the file, or with too many pieces, is not used', () => {
  const content = formatIntervalMap(digest, [{ from: 0, to: 100 }])
  assert.ok(content !== undefined)
  assert.equal(parseIntervalMap(content, digest, 99), undefined)
  assert.equal(parseIntervalMap(content, digest, 100)?.bytes, 100)
  const many = Array.from({ length: 65_537 }, (_, index) => ({ from: index * 2, to: index * 2 + 1 }))
  assert.equal(formatIntervalMap(digest, many), undefined)
})
