import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Breaker } from '../../../src/upstream/breaker.ts'
import { ManualClock } from '../../support/manual-clock.ts'

function startBreaker(): { breaker: Breaker; clock: ManualClock; events: string[] } {
  const clock = new ManualClock()
  const events: string[] = []
  const breaker = new Breaker({
    clock,
    random: () => 0.5,
    onOpen: (ms) => events.push(`open ${ms}`),
    onClose: () => events.push('closed'),
  })
  return { breaker, clock, events }
}

function call(breaker: Breaker, outcome: 'succeed' | 'fail' | 'leave'): boolean {
  const passed = breaker.enter()
  if (passed) breaker[outcome]()
  return passed
}

describe('breaker', () => {
  it('two failures, or four, do not open it; five do', () => {
    const { breaker, events } = startBreaker()
    for (let calls = 0; calls < 4; calls++) assert.equal(call(breaker, 'fail'), true)
    assert.equal(breaker.state, 'closed')
    call(breaker, 'fail')
    assert.equal(breaker.state, 'open')
    assert.deepEqual(events, ['open 2000'])
    assert.equal(breaker.enter(), false)
  })

  it('a rate below a half does not open it, however many calls fail', () => {
    const { breaker } = startBreaker()
    for (let calls = 0; calls < 60; calls++) call(breaker, calls % 5 < 3 ? 'succeed' : 'fail')
    assert.equal(breaker.state, 'closed')
  })

  it('failures older than the window do not count', () => {
    const { breaker, clock } = startBreaker()
    for (let calls = 0; calls < 20; calls++) {
      call(breaker, 'fail')
      clock.advance(10_000)
    }
    assert.equal(breaker.state, 'closed')
  })

  it('after its pause one call probes, and the others are kept out meanwhile', () => {
    const { breaker, clock, events } = startBreaker()
    for (let calls = 0; calls < 5; calls++) call(breaker, 'fail')
    clock.advance(1_999)
    assert.equal(breaker.enter(), false)
    clock.advance(1)
    assert.equal(breaker.enter(), true)
    assert.equal(breaker.state, 'probing')
    assert.equal(breaker.enter(), false)
    breaker.succeed()
    assert.equal(breaker.state, 'closed')
    assert.deepEqual(events, ['open 2000', 'closed'])
  })

  it('a failed probe doubles the pause up to a minute, a success resets it', () => {
    const { breaker, clock, events } = startBreaker()
    for (let calls = 0; calls < 5; calls++) call(breaker, 'fail')
    for (let probes = 0; probes < 7; probes++) {
      clock.advance(60_000)
      call(breaker, 'fail')
    }
    assert.deepEqual(events.slice(0, 5), ['open 2000', 'open 4000', 'open 8000', 'open 16000', 'open 32000'])
    assert.equal(events.at(-1), 'open 60000')
    clock.advance(60_000)
    call(breaker, 'succeed')
    for (let calls = 0; calls < 5; calls++) call(breaker, 'fail')
    assert.equal(events.at(-1), 'open 2000')
  })

  it('a probe that was called off lets the next call probe', () => {
    const { breaker, clock } = startBreaker()
    for (let calls = 0; calls < 5; calls++) call(breaker, 'fail')
    clock.advance(2_000)
    call(breaker, 'leave')
    assert.equal(breaker.state, 'open')
    assert.equal(breaker.enter(), true)
  })
})
