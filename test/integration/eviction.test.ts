/** T28 and rows 86, 93, 94: a quota holds whatever races, and no pull fails because of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runEvictionWorkload } from '../support/eviction-workload.ts'

const MiB = 1024 * 1024

test('T28: 400 racing operations end no pull, and the disk never holds more than the quota and one object', async (t) => {
  const seed = process.env['ENTREPOT_SEED'] ?? '1'
  t.diagnostic(`ENTREPOT_SEED=${seed}`)
  const quotaBytes = 2 * MiB
  const result = await runEvictionWorkload({ seed, operations: 400, workers: 12, quotaBytes, images: 40 })
  t.diagnostic(JSON.stringify({ ...result, quotaBytes }))
  assert.deepEqual(result.failures, [])
  assert.deepEqual(result.defects, [])
  assert.ok(result.peakBytes <= quotaBytes + result.largestBytes, `${result.peakBytes} bytes on the disk`)
  assert.ok(result.evictedImages > 5)
})
