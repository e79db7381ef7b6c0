import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  contentRange,
  ifRangeAllows,
  multipartRanges,
  parseRange,
  unsatisfiedRange,
  type RangeChoice,
} from '../../../src/registry/range.ts'

const whole: RangeChoice = { kind: 'whole' }
const none: RangeChoice = { kind: 'unsatisfiable' }
const single = (from: number, to: number): RangeChoice => ({ kind: 'single', range: { from, to } })
const many = (...pairs: [number, number][]): RangeChoice => ({
  kind: 'multiple',
  ranges: pairs.map(([from, to]) => ({ from, to })),
})

const rows: readonly (readonly [string | undefined, RangeChoice])[] = [
  [undefined, whole],
  ['bytes=0-0', single(0, 1)],
  ['bytes=0-', single(0, 100)],
  ['bytes=10-19', single(10, 20)],
  ['bytes=99-', single(99, 100)],
  ['bytes=0-100', single(0, 100)], // Docker asks for one byte too many
  ['bytes=50-1000', single(50, 100)],
  ['bytes=0-99999999999999999999999', single(0, 100)],
  ['bytes=-5', single(95, 100)],
  ['bytes=-1000', single(0, 100)],
  ['Bytes=1-2', single(1, 3)],
  ['bytes= 1-2 ', single(1, 3)],
  ['bytes=,1-2,', single(1, 3)],
  ['bytes=0-1,5-6', many([0, 2], [5, 7])],
  ['bytes=5-6, 0-1', many([5, 7], [0, 2])],
  ['bytes=0-1,1-2', many([0, 2], [1, 3])],
  ['bytes=0-1,-2', many([0, 2], [98, 100])],
  ['bytes=0-1,200-', single(0, 2)],
  // outside
  ['bytes=100-', none],
  ['bytes=100-200', none],
  ['bytes=99999999999999999999999-', none],
  ['bytes=-0', none],
  ['bytes=200-,300-400', none],
  // malformed, or another unit: ignored
  ['bytes=5-2', whole],
  ['bytes=', whole],
  ['bytes=,', whole],
  ['bytes', whole],
  ['', whole],
  ['items=0-1', whole],
  ['bytes=a-b', whole],
  ['bytes=1', whole],
  ['bytes=--1', whole],
  ['bytes=0-1;5-6', whole],
  ['bytes=0-1,x', whole],
  ['bytes=0x1-2', whole],
  ['bytes=1.5-2', whole],
  // made to hurt
  [`bytes=${'0-,'.repeat(500)}`, whole],
  [`bytes=${'0-0,'.repeat(50)}`, whole],
  [`bytes=${'0-0,1-1,'.repeat(600)}`, whole],
  ['bytes=0-60,50-99,40-70', whole],
]

for (const [header, expected] of rows) {
  test(`${header?.slice(0, 40)} of 100 bytes is ${expected.kind}`, () =>
    assert.deepEqual(parseRange(header, 100), expected))
}

test('an empty blob is whole for every range', () => {
  for (const header of ['bytes=0-', 'bytes=-5', 'bytes=0-0', 'bytes=5-6,7-8'])
    assert.deepEqual(parseRange(header, 0), whole)
})

test('If-Range allows a range only for exactly these bytes', () => {
  assert.equal(ifRangeAllows(undefined, '"x"'), true)
  assert.equal(ifRangeAllows('"x"', '"x"'), true)
  for (const other of ['W/"x"', '"y"', 'x', 'Tue, 24 Nov 2026 00:00:00 GMT', '']) {
    assert.equal(ifRangeAllows(other, '"x"'), false)
  }
})

test('Content-Range counts the last byte in', () => {
  assert.equal(contentRange({ from: 0, to: 1 }, 300_261), 'bytes 0-0/300261')
  assert.equal(unsatisfiedRange(300_261), 'bytes */300261')
})

test('a multipart body has one part per range in their order, and exactly the announced length', () => {
  const blob = Buffer.from('0123456789')
  const ranges = [
    { from: 5, to: 7 },
    { from: 0, to: 1 },
  ]
  const parts = multipartRanges(ranges, { size: 10, partType: 'application/octet-stream', boundary: 'B' })
  const body = Buffer.concat(
    parts.segments.map((part) => (part instanceof Uint8Array ? part : blob.subarray(part.from, part.to))),
  )
  assert.equal(parts.contentType, 'multipart/byteranges; boundary=B')
  assert.equal(body.length, parts.contentLength)
  const head = 'Content-Type: application/octet-stream\r\nContent-Range: bytes '
  assert.equal(body.toString(), `--B\r\n${head}5-6/10\r\n\r\n56\r\n--B\r\n${head}0-0/10\r\n\r\n0\r\n--B--\r\n`)
})

test('every choice stays within the blob and never costs more than it', () => {
  const bound = fc.oneof(fc.nat(120).map(String), fc.constantFrom('', '-', 'x'))
  const spec = fc.tuple(bound, bound).map(([first, last]) => `${first}-${last}`)
  const header = fc.oneof(
    fc.array(spec, { maxLength: 12 }).map((specs) => `bytes=${specs.join(',')}`),
    fc.string(),
  )
  fc.assert(
    fc.property(header, fc.nat(100), (text, size) => {
      const choice = parseRange(text, size)
      const ranges = choice.kind === 'single' ? [choice.range] : choice.kind === 'multiple' ? choice.ranges : []
      let bytes = 0
      for (const { from, to } of ranges) {
        assert.ok(from >= 0 && from < to && to <= size, `${from}-${to} of ${size}`)
        bytes += to - from
      }
      assert.ok(bytes <= size)
    }),
    { numRuns: 5000 },
  )
})
