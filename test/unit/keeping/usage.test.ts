import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { UsageCount } from '../../../src/keeping/usage.ts'
import { parseDigest, type Digest } from '../../../src/oci/digest.ts'

function aDigest(first: string): Digest {
  const digest = parseDigest(`sha256:${first.padEnd(64, '0')}`)
  assert.ok(digest)
  return digest
}

describe('bytes held', () => {
  it('are counted as they come and go, and never below nothing', () => {
    const usage = new UsageCount()
    usage.add(aDigest('aa'), 100)
    usage.setLeftovers(7)
    assert.equal(usage.bytes, 107)
    usage.startRemoval(aDigest('aa'))(1_000)
    assert.equal(usage.bytes, 7)
  })

  it('are what a whole walk found, with what came and went behind it', () => {
    const usage = new UsageCount()
    usage.add(aDigest('aa'), 999)
    usage.startWalk()
    usage.walked(aDigest('10'), 10)
    usage.walked(aDigest('80'), 20)
    usage.add(aDigest('20'), 3) // behind: the walk has missed it
    usage.add(aDigest('f0'), 5) // ahead: the walk will find it
    usage.startRemoval(aDigest('10'))(10) // behind: it was counted
    usage.startRemoval(aDigest('f1'))(50) // ahead: it will not be found
    usage.walked(aDigest('f0'), 5)
    usage.endWalk(true)
    assert.equal(usage.bytes, 20 + 3 + 5)
  })

  it('may be too many, not too few, where a walk may or may not have seen a blob', () => {
    const usage = new UsageCount()
    usage.startWalk()
    usage.walked(aDigest('aa10'), 10)
    usage.add(aDigest('aa20'), 4)
    usage.walked(aDigest('aa20'), 4)
    usage.endWalk(true)
    assert.equal(usage.bytes, 18)
  })

  it('are not taken off twice when the walk passes a blob while it is being removed', () => {
    const usage = new UsageCount()
    usage.add(aDigest('50'), 10)
    usage.add(aDigest('10'), 7)
    usage.startWalk()
    usage.walked(aDigest('10'), 7)
    const removed = usage.startRemoval(aDigest('50'))
    usage.walked(aDigest('80'), 20) // it found no 50
    removed(10)
    usage.endWalk(true)
    assert.equal(usage.bytes, 27)
  })

  it('stay as counted when a walk did not come to its end', () => {
    const usage = new UsageCount()
    usage.add(aDigest('aa'), 40)
    usage.startWalk()
    usage.walked(aDigest('10'), 1)
    usage.endWalk(false)
    assert.equal(usage.bytes, 40)
  })
})
