import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Resumption } from '../../../src/cache/resumption.ts'
import { GatewayError, type ErrorCode } from '../../../src/errors.ts'

const cut = { hasBegun: true, isParallel: false }
const signal = new AbortController().signal
const failure = (code: ErrorCode, retryAfterMs?: number): GatewayError =>
  new GatewayError(code, 'a transfer failed', retryAfterMs === undefined ? {} : { retryAfterMs })

test('a cut is taken up again while bytes come, at once the first time', async () => {
  const resumption = new Resumption(() => 0)
  for (let cuts = 0; cuts < 50; cuts++) {
    assert.ok(resumption.admits(failure('UPSTREAM_UNREACHABLE'), cut))
    // A pause that grew with the cuts would end long after this.
    const isLate = sleep(20_000, 'late', { ref: false })
    assert.notEqual(await Promise.race([resumption.pause(failure('UPSTREAM_UNREACHABLE'), signal), isLate]), 'late')
    resumption.progressed()
  }
})

test('five cuts in a row without a new byte are the end', async () => {
  const resumption = new Resumption(() => -0.5)
  for (let cuts = 0; cuts < 5; cuts++) {
    assert.ok(resumption.admits(failure('UPSTREAM_ERROR'), cut))
    await resumption.pause(failure('UPSTREAM_ERROR'), signal)
  }
  assert.equal(resumption.admits(failure('UPSTREAM_ERROR'), cut), false)
})

test('connections that are cut together count as one cut', async () => {
  const resumption = new Resumption(() => -0.5)
  for (let outages = 0; outages < 4; outages++) {
    await Promise.all([1, 2, 3, 4].map(() => resumption.pause(failure('UPSTREAM_UNREACHABLE'), signal)))
  }
  assert.ok(resumption.admits(failure('UPSTREAM_UNREACHABLE'), cut))
})

test('what the first byte was refused with is the answer, and so is a 404 at any time', () => {
  const resumption = new Resumption(() => 0)
  assert.equal(resumption.admits(failure('UPSTREAM_ERROR'), { ...cut, hasBegun: false }), false)
  assert.equal(resumption.admits(failure('BLOB_UNKNOWN'), cut), false)
  assert.equal(resumption.admits(failure('STORE_FULL'), cut), false)
})

test('a surprise is tried once more over one connection, if there could have been several', () => {
  const resumption = new Resumption(() => 0)
  assert.equal(new Resumption(() => 0).admits(failure('UPSTREAM_INVALID'), cut), false)
  assert.ok(resumption.admits(failure('UPSTREAM_INVALID'), { ...cut, isParallel: true }))
  assert.ok(resumption.isSingle)
  assert.equal(resumption.admits(failure('UPSTREAM_INVALID'), { ...cut, isParallel: true }), false)
})

test('429 and a full queue leave one connection, and what was asked for is waited', async () => {
  for (const code of ['UPSTREAM_THROTTLED', 'OVERLOADED'] as const) {
    const resumption = new Resumption(() => 0)
    assert.ok(resumption.admits(failure(code, 120), cut) && resumption.isSingle)
    const startedAt = performance.now()
    const pause = resumption.pause(failure(code, 120), signal)
    assert.ok(resumption.isWaiting)
    await pause
    assert.ok(performance.now() - startedAt >= 110 && !resumption.isWaiting)
  }
})
