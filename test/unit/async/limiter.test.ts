import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Limiter } from '../../../src/async/limiter.ts'
import { codeOf } from '../../../src/errors.ts'

const never = new AbortController().signal

test('no more than the slots run at a time, in the order they came', async () => {
  const limiter = new Limiter({ slots: 2, queue: 10, what: 'transfers' })
  const order: number[] = []
  let running = 0
  let peak = 0
  await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      using _slot = await limiter.acquire(never)
      peak = Math.max(peak, ++running)
      order.push(index)
      await new Promise((resolve) => setTimeout(resolve, 2))
      running--
    }),
  )
  assert.equal(peak, 2)
  assert.deepEqual(order, [0, 1, 2, 3, 4, 5, 6, 7])
})

test('one more than the line takes is refused at once as overload', async () => {
  const limiter = new Limiter({ slots: 1, queue: 1, what: 'transfers' })
  const first = await limiter.acquire(never)
  const second = limiter.acquire(never)
  await assert.rejects(limiter.acquire(never), (error) => codeOf(error) === 'OVERLOADED')
  first[Symbol.dispose]()
  ;(await second)[Symbol.dispose]()
})

test('who gives up in the line leaves it', async () => {
  const limiter = new Limiter({ slots: 1, queue: 1, what: 'transfers' })
  const first = await limiter.acquire(never)
  const impatient = new AbortController()
  const waiting = limiter.acquire(impatient.signal)
  impatient.abort(new Error('gone'))
  await assert.rejects(waiting, /gone/)
  assert.equal(limiter.waiting, 0)
  first[Symbol.dispose]()
  first[Symbol.dispose]()
  ;(await limiter.acquire(never))[Symbol.dispose]()
})
