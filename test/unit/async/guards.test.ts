import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Guards } from '../../../src/async/guards.ts'

describe('guards', () => {
  it('many hold a key; it is had alone only when nobody does', async () => {
    const guards = new Guards()
    const one = await guards.hold('a')
    const two = await guards.hold('a')
    one[Symbol.dispose]()
    assert.equal(await guards.runAlone('a', () => Promise.resolve('done')), undefined)
    assert.equal(await guards.runAlone('b', () => Promise.resolve('done')), 'done')
    two[Symbol.dispose]()
    assert.equal(guards.isHeld('a'), false)
    assert.equal(await guards.runAlone('a', () => Promise.resolve('done')), 'done')
  })

  it('who comes while it is had alone waits, also when that fails; a second claim does not', async () => {
    const guards = new Guards()
    const { promise, reject } = Promise.withResolvers<void>()
    const alone = guards.runAlone('a', () => promise)
    let isHeld = false
    const hold = guards.hold('a').then((held) => ((isHeld = true), held))
    assert.equal(await guards.runAlone('a', () => Promise.resolve('done')), undefined)
    assert.equal(isHeld, false)
    reject(new Error('broken'))
    await assert.rejects(alone, /broken/)
    using _held = await hold
    assert.equal(isHeld, true)
  })
})
