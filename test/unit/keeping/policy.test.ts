import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { excessOver, planEviction, type Candidate, type Excess, type PolicyInput } from '../../../src/keeping/policy.ts'
import { digestOf, type Digest } from '../../../src/oci/digest.ts'

const NOW = 1_000_000
const digests = Array.from({ length: 12 }, (_, index) => digestOf(Buffer.from(`blob ${index}`)))
const sizes = new Map(digests.map((digest, index) => [digest, (index + 1) * 10]))
const sizeOf = (digest: Digest): number => sizes.get(digest) ?? 0

function candidate(
  key: string,
  options: Partial<Omit<Candidate, 'needs'>> & { readonly blobs: readonly number[] },
): Candidate {
  const { blobs, ...rest } = options
  const needs = new Map(blobs.flatMap((index) => (digests[index] ? [[digests[index], sizeOf(digests[index])]] : [])))
  const usedAt = rest.usedAt ?? 0
  return { key, namespace: 'a', usedAt, seenAt: usedAt, isPinned: false, ...rest, needs }
}

function input(candidates: readonly Candidate[], rest: Partial<PolicyInput> = {}): PolicyInput {
  return {
    now: NOW,
    candidates,
    excess: { namespaces: new Map(), inAll: 0, free: 0 },
    idleMsOf: () => Infinity,
    minAgeMs: 0,
    isBusy: () => false,
    isNeededElsewhere: () => false,
    ...rest,
  }
}

const over = (bytes: number): Excess => ({ namespaces: new Map([['a', bytes]]), inAll: 0, free: 0 })
const keysOf = (plan: readonly { readonly image: Candidate }[]): string[] => plan.map(({ image }) => image.key)

describe('what goes when space is short', () => {
  it('is the least recently used image, and no more than is needed', () => {
    const images = [
      candidate('new', { usedAt: 300, blobs: [2] }),
      candidate('old', { usedAt: 100, blobs: [0] }),
      candidate('middle', { usedAt: 200, blobs: [1] }),
    ]
    assert.deepEqual(keysOf(planEviction(input(images, { excess: over(10) }))), ['old'])
    assert.deepEqual(keysOf(planEviction(input(images, { excess: over(11) }))), ['old', 'middle'])
    assert.deepEqual(keysOf(planEviction(input(images))), [])
  })

  it('a HEAD does not save an image that a pull would have', () => {
    const images = [
      candidate('pulled', { usedAt: 200, blobs: [0] }),
      candidate('only looked at', { usedAt: 100, seenAt: 900, blobs: [1] }),
    ]
    assert.deepEqual(keysOf(planEviction(input(images, { excess: over(5) }))), ['only looked at'])
  })

  it('a shared layer is freed only with the last image that needs it', () => {
    const images = [
      candidate('one', { usedAt: 100, blobs: [0, 9] }),
      candidate('two', { usedAt: 200, blobs: [1, 9] }),
      candidate('three', { usedAt: 300, blobs: [2] }),
    ]
    const plan = planEviction(input(images, { excess: over(100) }))
    assert.deepEqual(
      plan.map(({ image, bytes }) => [image.key, bytes]),
      [
        ['one', 10],
        ['two', 20 + 100],
      ],
    )
  })

  it('what is young, pinned or being read stays', () => {
    const images = [
      candidate('pinned', { usedAt: 1, isPinned: true, blobs: [0] }),
      candidate('being read', { usedAt: 2, blobs: [1] }),
      candidate('young', { usedAt: NOW - 10, blobs: [2] }),
    ]
    const plan = planEviction(
      input(images, { excess: over(1e9), minAgeMs: 100, isBusy: (_, digest) => digest === digests[1] }),
    )
    assert.deepEqual(keysOf(plan), [])
  })

  it('an image whose base is being read by another may go: the base stays', () => {
    const images = [candidate('old', { usedAt: 1, blobs: [0, 9] }), candidate('new', { usedAt: 2, blobs: [1, 9] })]
    const plan = planEviction(input(images, { excess: over(1e9), isBusy: (_, digest) => digest === digests[9] }))
    assert.deepEqual(keysOf(plan), ['old'])
  })

  it('a quota of one upstream takes nothing from another; one of all takes the oldest wherever it is', () => {
    const images = [
      candidate('b-old', { namespace: 'b', usedAt: 1, blobs: [0] }),
      candidate('a-new', { namespace: 'a', usedAt: 2, blobs: [0] }),
    ]
    assert.deepEqual(keysOf(planEviction(input(images, { excess: over(5) }))), ['a-new'])
    const inAll: Excess = { namespaces: new Map(), inAll: 5, free: 0 }
    assert.deepEqual(keysOf(planEviction(input(images, { excess: inAll }))), ['b-old'])
  })

  it('the same digest in two upstreams is two things', () => {
    const images = [
      candidate('a', { namespace: 'a', usedAt: 1, blobs: [9] }),
      candidate('b', { namespace: 'b', usedAt: 2, blobs: [9] }),
    ]
    assert.deepEqual(
      planEviction(input(images, { excess: over(5) })).map(({ bytes }) => bytes),
      [100],
    )
  })
})

describe('what goes because nobody uses it', () => {
  it('is what neither GET nor HEAD asked for in the idle time', () => {
    const images = [
      candidate('idle', { usedAt: NOW - 500, blobs: [0] }),
      candidate('looked at', { usedAt: NOW - 500, seenAt: NOW - 50, blobs: [1] }),
      candidate('pinned', { usedAt: 0, isPinned: true, blobs: [2] }),
    ]
    const plan = planEviction(input(images, { idleMsOf: () => 100 }))
    assert.deepEqual(
      plan.map(({ image, reason }) => [image.key, reason]),
      [['idle', 'idle']],
    )
  })
})

it('excess counts what is promised, and goes down to the low mark', () => {
  assert.equal(excessOver({ used: 80, promised: 10, quota: 100 }, 10, 0.9), 0)
  assert.equal(excessOver({ used: 80, promised: 10, quota: 100 }, 11, 1), 1)
  assert.equal(excessOver({ used: 80, promised: 10, quota: 100 }, 11, 0.9), 11)
  assert.equal(excessOver({ used: 1e15, promised: 0, quota: Infinity }, 1, 0.9), 0)
})

describe('whatever is held', () => {
  const image = fc.record({
    namespace: fc.constantFrom('a', 'b'),
    usedAt: fc.integer({ min: 0, max: NOW }),
    seenLater: fc.integer({ min: 0, max: 1000 }),
    isPinned: fc.boolean(),
    blobs: fc.uniqueArray(fc.integer({ min: 0, max: digests.length - 1 }), { minLength: 1, maxLength: 5 }),
  })
  const world = fc
    .record({
      images: fc.array(image, { maxLength: 14 }),
      busy: fc.uniqueArray(fc.integer({ min: 0, max: digests.length - 1 }), { maxLength: 3 }),
      over: fc.record({ a: fc.integer({ min: -50, max: 900 }), b: fc.integer({ min: -50, max: 900 }) }),
      inAll: fc.integer({ min: -50, max: 1500 }),
      free: fc.integer({ min: -50, max: 1500 }),
      minAgeMs: fc.constantFrom(0, 1000, 500_000),
      idleMs: fc.constantFrom(Infinity, 300_000),
    })
    .map(({ images, busy, over: { a, b }, inAll, free, minAgeMs, idleMs }) => {
      const candidates = images.map(({ seenLater, ...rest }, index) =>
        candidate(`${index}`, { ...rest, seenAt: rest.usedAt + seenLater }),
      )
      const busyDigests = new Set(busy.map((index) => digests[index]))
      const isBusy = (_: string, digest: Digest): boolean => busyDigests.has(digest)
      const excess = { namespaces: new Map(Object.entries({ a, b })), inAll, free }
      return input(candidates, { isBusy, excess, minAgeMs, idleMsOf: () => idleMs })
    })

  const freedOf = ({ candidates }: PolicyInput, gone: ReadonlySet<string>, namespace?: string): number => {
    const held = new Map<string, number>()
    const left = new Set<string>()
    for (const { namespace: name, key, needs } of candidates) {
      if (namespace !== undefined && name !== namespace) continue
      for (const [digest, bytes] of needs) {
        held.set(`${name} ${digest}`, bytes)
        if (!gone.has(key)) left.add(`${name} ${digest}`)
      }
    }
    return [...held].reduce((sum, [digest, bytes]) => sum + (left.has(digest) ? 0 : bytes), 0)
  }

  it('no pin goes, and nothing that is being filled or read is freed', () => {
    fc.assert(
      fc.property(world, (given) => {
        const gone = new Set(keysOf(planEviction(given)))
        assert.ok(given.candidates.every(({ key, isPinned }) => !isPinned || !gone.has(key)))
        for (const { key, namespace, needs } of given.candidates.filter(({ key }) => gone.has(key))) {
          for (const digest of needs.keys()) {
            if (!given.isBusy(namespace, digest)) continue
            const others = given.candidates.filter((other) => other.namespace === namespace && other.needs.has(digest))
            assert.ok(
              others.some((other) => !gone.has(other.key)),
              `${key} frees a busy blob`,
            )
          }
        }
      }),
    )
  })

  it('the bytes told are the bytes freed, each once', () => {
    fc.assert(
      fc.property(world, (given) => {
        const plan = planEviction(given)
        const told = plan.reduce((sum, { bytes }) => sum + bytes, 0)
        assert.equal(told, freedOf(given, new Set(keysOf(plan))))
        assert.equal(new Set(keysOf(plan)).size, plan.length)
      }),
    )
  })

  it('it ends under every limit, or nothing that may go is left', () => {
    fc.assert(
      fc.property(world, (given) => {
        const gone = new Set(keysOf(planEviction(given)))
        const left = (namespace?: string): number => freedOf(given, gone, namespace)
        const isUnder =
          given.excess.inAll <= left() &&
          given.excess.free <= left() &&
          [...given.excess.namespaces].every(([name, bytes]) => bytes <= left(name))
        if (isUnder) return
        for (const image of given.candidates) {
          if (gone.has(image.key) || image.isPinned || NOW - image.usedAt < given.minAgeMs) continue
          const isOver =
            given.excess.inAll > left() ||
            given.excess.free > left() ||
            (given.excess.namespaces.get(image.namespace) ?? 0) > left(image.namespace)
          if (!isOver) continue
          const freesBusy = [...image.needs.keys()].some(
            (digest) =>
              given.isBusy(image.namespace, digest) &&
              !given.candidates.some(
                (other) =>
                  other.key !== image.key &&
                  other.namespace === image.namespace &&
                  other.needs.has(digest) &&
                  !gone.has(other.key),
              ),
          )
          // A busy blob may also have been held back by an image that went only after this one was looked at.
          assert.ok(freesBusy, `${image.key} might have gone`)
        }
      }),
    )
  })

  it('for space an older image that may go never outlives a younger one', () => {
    fc.assert(
      fc.property(world, (given) => {
        const calm = { ...given, isBusy: () => false, idleMsOf: () => Infinity }
        const one = { ...calm, candidates: calm.candidates.filter(({ namespace }) => namespace === 'a') }
        const gone = new Set(keysOf(planEviction(one)))
        const last = Math.max(...one.candidates.filter(({ key }) => gone.has(key)).map(({ usedAt }) => usedAt))
        for (const { key, isPinned, usedAt } of one.candidates) {
          if (!isPinned && usedAt < last) assert.ok(gone.has(key))
        }
      }),
    )
  })

  it('what an image elsewhere needs is never counted as freed', () => {
    fc.assert(
      fc.property(world, (given) => {
        const elsewhere = { ...given, isNeededElsewhere: () => true }
        assert.equal(
          planEviction(elsewhere).reduce((sum, { bytes }) => sum + bytes, 0),
          0,
        )
      }),
    )
  })
})
