import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { codeOf } from '../../../src/errors.ts'
import { Lane } from '../../../src/upstream/lane.ts'

const { signal } = new AbortController()
const client = { signal, priority: 'client' } as const
const background = { signal, priority: 'background' } as const

describe('lane', () => {
  it('only so many are in at a time, and clients go before background work', async () => {
    const lane = new Lane({ name: 'lane', slots: 1, queueLength: 10, queueMs: 1_000 })
    const leave = await lane.enter(client)
    const order: string[] = []
    const enter = async (name: string, options: typeof client | typeof background): Promise<void> => {
      const done = await lane.enter(options)
      order.push(name)
      done()
      done()
    }
    const all = [enter('b1', background), enter('c1', client), enter('b2', background), enter('c2', client)]
    await nextTurn()
    assert.deepEqual(order, [])
    leave()
    await Promise.all(all)
    assert.deepEqual(order, ['c1', 'c2', 'b1', 'b2'])
  })

  it('one more than the queue takes is turned away at once', async () => {
    const lane = new Lane({ name: 'lane', slots: 1, queueLength: 1, queueMs: 1_000 })
    const leave = await lane.enter(client)
    const waiting = lane.enter(client)
    await assert.rejects(lane.enter(client), (error: unknown) => codeOf(error) === 'OVERLOADED')
    leave()
    ;(await waiting)()
    ;(await lane.enter(client))()
  })

  it('whoever gives up or waits too long loses no slot', async () => {
    const lane = new Lane({ name: 'lane', slots: 1, queueLength: 10, queueMs: 20 })
    const leave = await lane.enter(client)
    const impatient = new AbortController()
    const gaveUp = assert.rejects(lane.enter({ signal: impatient.signal, priority: 'client' }), { message: 'enough' })
    impatient.abort(new Error('enough'))
    await gaveUp
    await assert.rejects(lane.enter(client), (error: unknown) => codeOf(error) === 'OVERLOADED')
    leave()
    ;(await lane.enter(client))()
    ;(await lane.enter(client))()
  })
})
