import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ManualClock } from '../../support/manual-clock.ts'

test('time passes only when it is told to, in both directions', () => {
  const clock = new ManualClock(1000)
  assert.equal(clock.now(), 1000)
  clock.advance(500)
  assert.equal(clock.now(), 1500)
  clock.advance(-600)
  assert.equal(clock.now(), 900)
})
