import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SingleFlight } from '../../../src/async/single-flight.ts'

const never = new AbortController().signal

test('callers with one key share one run', async () => {
  const flights = new SingleFlight<number>()
  let runs = 0
  const start = async (): Promise<number> => ++runs
  const results = await Promise.all(Array.from({ length: 50 }, () => flights.join('key', never, start)))
  assert.deepEqual(new Set(results), new Set([1]))
  assert.equal(await flights.join('key', never, start), 2)
})

test('a caller that gives up leaves the others undisturbed', async () => {
  const flights = new SingleFlight<string>()
  const { promise, resolve } = Promise.withResolvers<string>()
  const impatient = new AbortController()
  let sharedSignal: AbortSignal | undefined
  const start = (shared: AbortSignal): Promise<string> => {
    sharedSignal = shared
    return promise
  }
  const first = flights.join('key', impatient.signal, start)
  const second = flights.join('key', never, start)
  impatient.abort(new Error('gone'))
  await assert.rejects(first, /gone/)
  assert.equal(sharedSignal?.aborted, false)
  resolve('done')
  assert.equal(await second, 'done')
})

test('the run is stopped when nobody waits any more, and the next caller starts anew', async () => {
  const flights = new SingleFlight<string>()
  const only = new AbortController()
  let sharedSignal: AbortSignal | undefined
  const first = flights.join('key', only.signal, (shared) => {
    sharedSignal = shared
    return new Promise(() => undefined)
  })
  only.abort(new Error('gone'))
  await assert.rejects(first, /gone/)
  assert.equal(sharedSignal?.aborted, true)
  assert.equal(await flights.join('key', never, async () => 'anew'), 'anew')
})

test('a failed run is told to all who wait and then forgotten', async () => {
  const flights = new SingleFlight<string>()
  const fail = (): Promise<string> => Promise.reject(new Error('broken'))
  const results = await Promise.allSettled([flights.join('k', never, fail), flights.join('k', never, fail)])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  assert.equal(await flights.join('k', never, async () => 'well'), 'well')
})
