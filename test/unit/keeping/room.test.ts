import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { idleCaches, type KeptNamespace } from '../../../src/keeping/namespace.ts'
import { hasExcess, Room } from '../../../src/keeping/room.ts'
import { UsageCount } from '../../../src/keeping/usage.ts'
import type { Store } from '../../../src/store/store.ts'
import { aDigest } from '../../conformance/ledger.ts'
import { Pins } from '../../../src/keeping/pins.ts'

const KiB = 1024

function aNamespace(name: string, quotaBytes: number, heldBytes: number): KeptNamespace {
  const usage = new UsageCount()
  usage.add(aDigest(name), heldBytes)
  const pins = new Pins(
    { readPins: () => Promise.resolve([]), writePins: () => Promise.resolve() },
    [],
    () => () => false,
  )
  // The room never asks the store: free bytes are an argument.
  const store = {} as Store
  return { name, label: name, store, caches: idleCaches, pins, usage, quotaBytes, idleMs: Infinity }
}

function roomOf(
  namespaces: readonly KeptNamespace[],
  limits: { quotaBytes?: number; freeFloorBytes?: number } = {},
): Room {
  const byName = new Map(namespaces.map((namespace) => [namespace.name, namespace]))
  return new Room({ quotaBytes: Infinity, freeFloorBytes: 0, ...limits }, byName)
}

describe('room', () => {
  it('promised to one body is not promised to another, until it is given back', () => {
    const a = aNamespace('a', 100 * KiB, 40 * KiB)
    const room = roomOf([a])
    const first = room.tryReserve(a, 40 * KiB, Infinity)
    assert.ok(first)
    assert.equal(room.tryReserve(a, 40 * KiB, Infinity), undefined)
    first[Symbol.dispose]()
    assert.ok(room.tryReserve(a, 40 * KiB, Infinity))
  })

  it('is what the quota of all leaves, whichever upstream asks', () => {
    const a = aNamespace('a', Infinity, 60 * KiB)
    const b = aNamespace('b', Infinity, 0)
    const room = roomOf([a, b], { quotaBytes: 100 * KiB })
    assert.ok(room.tryReserve(b, 40 * KiB, Infinity))
    assert.equal(room.tryReserve(a, 4 * KiB, Infinity), undefined)
  })

  it('counts of a body only what is not on the disk yet', () => {
    const a = aNamespace('a', Infinity, 0)
    const room = roomOf([a], { freeFloorBytes: 10 * KiB })
    const body = room.tryReserve(a, 40 * KiB, 100 * KiB)
    assert.ok(body)
    assert.equal(room.tryReserve(a, 60 * KiB, 100 * KiB), undefined)
    body.track(() => 0)
    assert.ok(room.tryReserve(a, 20 * KiB, 60 * KiB))
  })

  it('that was used up is made down to the low mark, also when the limit is only reached', () => {
    const a = aNamespace('a', 100 * KiB, 100 * KiB)
    const room = roomOf([a])
    assert.equal(hasExcess(room.excess(Infinity, false)), false)
    assert.equal(room.excess(Infinity, true).namespaces.get('a'), 10 * KiB)
  })

  it('on a disk full of what is not ours is not sought among what is', () => {
    const a = aNamespace('a', Infinity, 50 * KiB)
    const room = roomOf([a], { freeFloorBytes: 100 * KiB })
    assert.equal(room.isHopeless(room.excess(90 * KiB, false)), false)
    assert.equal(room.isHopeless(room.excess(0, false)), true)
  })
})
