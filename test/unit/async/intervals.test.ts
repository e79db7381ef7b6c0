import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Intervals } from '../../../src/async/intervals.ts'

const SIZE = 64

/** The same set kept the slow way: one flag a byte. */
class Flags {
  readonly held = Array.from({ length: SIZE }, () => false)
  set(from: number, to: number, value: boolean): void {
    this.held.fill(value, from, Math.max(from, to))
  }
}

const bound = fc.integer({ min: 0, max: SIZE })
const operation = fc.record({ from: bound, to: bound, isAdd: fc.boolean() })

test('intervals hold exactly the bytes that were added and not removed', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), bound, bound, (operations, from, to) => {
      const intervals = new Intervals()
      const flags = new Flags()
      for (const { from: start, to: end, isAdd } of operations) {
        if (isAdd) intervals.add(start, end)
        else intervals.remove(start, end)
        flags.set(start, end, isAdd)
      }
      assert.equal(intervals.bytes, flags.held.filter(Boolean).length)
      const run = flags.held.indexOf(false, from)
      assert.equal(intervals.heldFrom(from), (run === -1 ? SIZE : run) - from)
      const firstMissing = flags.held.findIndex((isHeld, at) => !isHeld && at >= from && at < to)
      assert.equal(intervals.firstGap(from, to)?.from, firstMissing === -1 ? undefined : firstMissing)
      assert.equal(intervals.contains(from, to), firstMissing === -1)
    }),
  )
})

test('the first gap ends where held bytes begin again', () => {
  const intervals = new Intervals([
    { from: 0, to: 10 },
    { from: 20, to: 30 },
  ])
  assert.deepEqual(intervals.firstGap(0, 100), { from: 10, to: 20 })
  assert.deepEqual(intervals.firstGap(25, 40), { from: 30, to: 40 })
  assert.deepEqual(intervals.firstGap(12, 15), { from: 12, to: 15 })
})

test('intervals that touch become one, so that a saved map stays small', () => {
  const intervals = new Intervals()
  for (let at = 0; at < 1000; at += 2) intervals.add(at, at + 1)
  for (let at = 1; at < 1000; at += 2) intervals.add(at, at + 1)
  assert.deepEqual(intervals.toArray(), [{ from: 0, to: 1000 }])
})
