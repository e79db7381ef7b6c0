import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FailureBudget } from '../../../src/access/failure-budget.ts'
import { ManualClock } from '../../support/manual-clock.ts'

function taken(budget: FailureBudget, address: string, tries: number): number {
  return Array.from({ length: tries }, () => budget.take(address)).filter(Boolean).length
}

test('an address has ten failures at once, then one every six seconds', () => {
  const clock = new ManualClock()
  const budget = new FailureBudget({ clock })
  assert.equal(taken(budget, '192.0.2.1', 15), 10)
  assert.equal(taken(budget, '192.0.2.2', 1), 1)
  clock.advance(5_999)
  assert.equal(taken(budget, '192.0.2.1', 1), 0)
  clock.advance(1)
  assert.equal(taken(budget, '192.0.2.1', 2), 1)
  clock.advance(3_600_000)
  assert.equal(taken(budget, '192.0.2.1', 50), 10)
})

test('what was no failure is given back, and never more than was taken', () => {
  const budget = new FailureBudget({ clock: new ManualClock(), burst: 2 })
  for (const _ of Array(20)) {
    assert.ok(budget.take('192.0.2.1'))
    budget.giveBack('192.0.2.1')
  }
  assert.equal(taken(budget, '192.0.2.1', 5), 2)
})

test('all addresses of an IPv6 /64 are one', () => {
  const budget = new FailureBudget({ clock: new ManualClock(), burst: 2 })
  assert.equal(taken(budget, '2001:db8:1:2::1', 2), 2)
  assert.equal(taken(budget, '2001:db8:1:2:3:4:5:6', 1), 0)
  assert.equal(taken(budget, '2001:db8:1:3::1', 1), 1)
  assert.equal(taken(budget, '::1', 2), 2)
  assert.equal(taken(budget, '::2', 1), 0)
})

test('a clock that is set back gives nothing and takes nothing', () => {
  const clock = new ManualClock()
  const budget = new FailureBudget({ clock, burst: 1 })
  assert.equal(taken(budget, '192.0.2.1', 1), 1)
  clock.advance(-1_000_000)
  assert.equal(taken(budget, '192.0.2.1', 1), 0)
})
