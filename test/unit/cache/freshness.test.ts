import assert from 'node:assert/strict'
import { test } from 'node:test'
import { freshness, isReferrersTag, maxWaitFor, type TagPolicy } from '../../../src/cache/freshness.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import { parseTag, type Tag } from '../../../src/oci/reference.ts'

const digest = digestOf(new Uint8Array(0))
const MINUTE = 60_000
const DAY = 86_400_000
const NOW = 1_800_000_000_000

function policy(parts: Partial<TagPolicy> = {}): TagPolicy {
  const times = { ttlMs: MINUTE, maxWaitMs: undefined, staleForMs: Infinity, goneForMs: DAY }
  const usual = { ...times, deniedForMs: 7 * DAY, recheckMs: DAY, onGone: 'keep' } as const
  return { ...usual, isImmutable: () => false, ...parts }
}

function tagOf(text: string): Tag {
  const tag = parseTag(text)
  assert.ok(tag)
  return tag
}

const TABLE: readonly [name: string, tag: string, ageMs: number, policy: TagPolicy, expected: string][] = [
  ['just confirmed', 'latest', 0, policy(), 'fresh'],
  ['within its ttl', 'latest', MINUTE - 1, policy(), 'fresh'],
  ['at the end of its ttl', 'latest', MINUTE, policy(), 'stale'],
  ['old, without a limit', 'latest', 400 * DAY, policy(), 'stale'],
  ['old, within the limit', 'latest', DAY, policy({ staleForMs: 7 * DAY }), 'stale'],
  ['past the limit', 'latest', 8 * DAY, policy({ staleForMs: 7 * DAY }), 'expired'],
  ['from a clock that was set back', 'latest', -DAY, policy(), 'stale'],
  ['a signature tag after half a minute', `sha256-${'a'.repeat(64)}.sig`, 31_000, policy({ ttlMs: DAY }), 'stale'],
  ['never confirmed', 'latest', NOW, policy({ staleForMs: DAY }), 'stale'],
]

for (const [name, tag, ageMs, tags, expected] of TABLE) {
  test(`a tag ${name} is ${expected}`, () => {
    assert.equal(freshness({ digest, checkedAt: NOW - ageMs }, tagOf(tag), NOW, tags), expected)
  })
}

test('a client waits 3 s for a tag confirmed within a day, 10 s otherwise, or what is configured', () => {
  assert.equal(maxWaitFor({ digest, checkedAt: NOW - MINUTE }, NOW, policy()), 3_000)
  assert.equal(maxWaitFor({ digest, checkedAt: NOW - 2 * DAY }, NOW, policy()), 10_000)
  assert.equal(maxWaitFor({ digest, checkedAt: 0 }, NOW, policy({ maxWaitMs: 500 })), 500)
})

test('tags made of a digest are referrers, tags that look alike are not', () => {
  assert.ok(isReferrersTag(tagOf(`sha256-${'0'.repeat(64)}`)))
  assert.ok(isReferrersTag(tagOf(`sha512-${'0'.repeat(64)}`)))
  assert.ok(!isReferrersTag(tagOf('sha256-cafe')))
})
