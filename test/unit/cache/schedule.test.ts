import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Intervals } from '../../../src/async/intervals.ts'
import { planTransfer, type Claim, type ScheduleState, type SchedulePolicy } from '../../../src/cache/schedule.ts'

const MiB = 1024 * 1024
const policy: SchedulePolicy = {
  connections: 4,
  parallelFromBytes: 32 * MiB,
  segmentBytes: 8 * MiB,
  urgentConnections: 16,
  nearBytes: 1 * MiB,
}

function state(parts: Partial<ScheduleState> & { size: number }): ScheduleState {
  return { held: new Intervals(), claims: [], wants: [whole(parts.size)], policy, isSingle: false, ...parts }
}

function whole(size: number, waitingAt?: number): ScheduleState['wants'][number] {
  return { spans: [{ from: 0, to: size }], waitingAt }
}

test('a small blob is fetched by one connection, whole', () => {
  assert.deepEqual(planTransfer(state({ size: 20 * MiB })), { from: 0, to: 20 * MiB })
  assert.equal(planTransfer(state({ size: 20 * MiB, claims: [{ position: 0, to: 20 * MiB }] })), undefined)
})

test('a large blob is fetched in segments by as many connections as configured', () => {
  const claims: Claim[] = []
  for (let index = 0; index < 4; index++) {
    const next = planTransfer(state({ size: 100 * MiB, claims }))
    assert.deepEqual(next, { from: index * 8 * MiB, to: (index + 1) * 8 * MiB })
    if (next) claims.push({ position: next.from, to: next.to })
  }
  assert.equal(planTransfer(state({ size: 100 * MiB, claims })), undefined)
})

test('segments stay in a window at the front, so that the first reader still streams', () => {
  const held = new Intervals([{ from: 8 * MiB, to: 72 * MiB }])
  assert.equal(planTransfer(state({ size: 1024 * MiB, held, claims: [{ position: 0, to: 8 * MiB }] })), undefined)
})

test('a reader far ahead of every transfer gets one of its own, and nothing before it', () => {
  const wants = [whole(1024 * MiB, 900 * MiB)]
  const claims = [{ position: 0, to: 8 * MiB }]
  assert.deepEqual(planTransfer(state({ size: 1024 * MiB, claims, wants })), { from: 900 * MiB, to: 908 * MiB })
})

test('a byte that a running transfer is about to bring is awaited', () => {
  const size = 20 * MiB
  const claims = [{ position: 4 * MiB, to: size }]
  assert.equal(planTransfer(state({ size, claims, wants: [whole(size, 4 * MiB + 100)] })), undefined)
})

test('a long range inside another transfer shortens it, a short one does not', () => {
  const size = 20 * MiB
  const claim = { position: 0, to: size }
  const long = planTransfer(
    state({ size, claims: [claim], wants: [{ spans: [{ from: 10 * MiB, to: size }], waitingAt: 10 * MiB }] }),
  )
  assert.deepEqual(long, { from: 10 * MiB, to: size, shortens: claim })
  const spans = [{ from: 10 * MiB, to: 10 * MiB + 1000 }]
  const short = planTransfer(state({ size, claims: [claim], wants: [{ spans, waitingAt: 10 * MiB }] }))
  assert.deepEqual(short, { from: 10 * MiB, to: 10 * MiB + 1000 })
})

test('only what somebody wants is fetched', () => {
  const wants = [{ spans: [{ from: 500, to: 600 }], waitingAt: undefined }]
  assert.deepEqual(planTransfer(state({ size: 1000, wants })), { from: 500, to: 600 })
  assert.equal(planTransfer(state({ size: 1000, wants, held: new Intervals([{ from: 500, to: 600 }]) })), undefined)
  assert.equal(planTransfer(state({ size: 1000, wants: [] })), undefined)
})

test('an upstream without ranges has one connection, from the front', () => {
  const claims = [{ position: 0, to: 100 * MiB }]
  assert.equal(
    planTransfer(state({ size: 100 * MiB, isSingle: true, claims, wants: [whole(100 * MiB, 90 * MiB)] })),
    undefined,
  )
})

test('run to the end, the schedule brings every wanted byte and no byte twice', () => {
  const size = 600
  const small: SchedulePolicy = {
    connections: 3,
    parallelFromBytes: 100,
    segmentBytes: 40,
    urgentConnections: 6,
    nearBytes: 0,
  }
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: size - 1 }), { maxLength: 5 }),
      fc.infiniteStream(fc.nat()),
      (waiting, choices) => {
        const held = new Intervals()
        const claims: { position: number; to: number }[] = []
        const fetched: number[] = Array.from({ length: size }, () => 0)
        for (let step = 0; step < 10_000; step++) {
          const wants = [whole(size), ...waiting.map((at) => whole(size, held.heldFrom(at) > 0 ? undefined : at))]
          for (let next = planTransfer({ size, held, claims, wants, policy: small, isSingle: false }); next;) {
            const shortened = claims.find((claim) => claim === next?.shortens)
            if (shortened) shortened.to = next.from
            claims.push({ position: next.from, to: next.to })
            next = planTransfer({ size, held, claims, wants, policy: small, isSingle: false })
          }
          const claim = claims[choices.next().value % Math.max(1, claims.length)]
          if (claim === undefined) break
          const end = Math.min(claim.to, claim.position + 7)
          for (let at = claim.position; at < end; at++) fetched[at] = (fetched[at] ?? 0) + 1
          held.add(claim.position, end)
          claim.position = end
          if (claim.position >= claim.to) claims.splice(claims.indexOf(claim), 1)
        }
        assert.ok(held.contains(0, size))
        assert.deepEqual(new Set(fetched), new Set([1]))
      },
    ),
    { numRuns: 200 },
  )
})
