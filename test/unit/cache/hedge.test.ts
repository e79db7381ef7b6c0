import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openHedged } from '../../../src/cache/hedge.ts'
import type { BlobStream } from '../../../src/upstream/upstream.ts'

const never = new AbortController().signal

class Tries {
  readonly opened: {
    readonly signal: AbortSignal
    answer: (stream: BlobStream) => void
    fail: (error: Error) => void
  }[] = []
  readonly cancelled: BlobStream[] = []

  readonly open = (signal: AbortSignal): Promise<BlobStream> => {
    const { promise, resolve, reject } = Promise.withResolvers<BlobStream>()
    this.opened.push({ signal, answer: resolve, fail: reject })
    signal.addEventListener('abort', () => reject(signal.reason as Error))
    return promise
  }

  stream(): BlobStream {
    const body = { async *[Symbol.asyncIterator]() {} }
    const stream: BlobStream = { from: 0, to: 1, size: 1, body, cancel: () => void this.cancelled.push(stream) }
    return stream
  }

  async began(count: number): Promise<void> {
    while (this.opened.length < count) await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

test('what answers in time is asked once', async () => {
  const tries = new Tries()
  const opened = openHedged(tries.open, { afterMs: 60_000, signal: never })
  const stream = tries.stream()
  tries.opened[0]?.answer(stream)
  assert.equal(await opened, stream)
  assert.deepEqual([tries.opened.length, tries.opened[0]?.signal.aborted], [1, false])
})

test('a first try that takes long is overtaken by a second and given up', async () => {
  const tries = new Tries()
  const opened = openHedged(tries.open, { afterMs: 5, signal: never })
  await tries.began(2)
  const stream = tries.stream()
  tries.opened[1]?.answer(stream)
  assert.equal(await opened, stream)
  assert.deepEqual(
    tries.opened.map(({ signal }) => signal.aborted),
    [true, false],
  )
})

test('a first try that answers after all wins, and the second is given up', async () => {
  const tries = new Tries()
  const opened = openHedged(tries.open, { afterMs: 5, signal: never })
  await tries.began(2)
  const stream = tries.stream()
  tries.opened[0]?.answer(stream)
  assert.equal(await opened, stream)
  assert.deepEqual(
    tries.opened.map(({ signal }) => signal.aborted),
    [false, true],
  )
})

test('a failure of the only try is told at once', async () => {
  const tries = new Tries()
  const opened = openHedged(tries.open, { afterMs: 60_000, signal: never })
  tries.opened[0]?.fail(new Error('refused'))
  await assert.rejects(opened, /refused/)
  assert.equal(tries.opened.length, 1)
})

test('with two tries under way one failure is no answer, two are', async () => {
  for (const order of [
    [0, 1],
    [1, 0],
  ] as const) {
    const tries = new Tries()
    const opened = openHedged(tries.open, { afterMs: 5, signal: never })
    await tries.began(2)
    tries.opened[order[0]]?.fail(new Error('refused'))
    const early = await Promise.race([
      opened.catch(() => 'failed'),
      new Promise((resolve) => setTimeout(resolve, 20, 'open')),
    ])
    assert.equal(early, 'open')
    tries.opened[order[1]]?.fail(new Error('refused too'))
    await assert.rejects(opened, /refused/)
  }
})
