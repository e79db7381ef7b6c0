/**
 * T28 whole: 100,000 racing operations. Run as `node --test test/slow/eviction.test.ts`; ENTREPOT_OPERATIONS and
 * ENTREPOT_SEED set another number, or the same race again.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { runEvictionWorkload } from '../support/eviction-workload.ts'

const MiB = 1024 * 1024

test('T28: 100,000 racing operations end no pull, and the disk never holds more than the quota and one object', async (t) => {
  const seed = process.env['ENTREPOT_SEED'] ?? randomBytes(4).toString('hex')
  const operations = Number(process.env['ENTREPOT_OPERATIONS'] ?? 100_000)
  t.diagnostic(`ENTREPOT_SEED=${seed}`)
  const quotaBytes = 4 * MiB
  const result = await runEvictionWorkload({ seed, operations, workers: 24, quotaBytes, images: 80 })
  t.diagnostic(JSON.stringify({ ...result, quotaBytes }))
  assert.deepEqual(result.failures, [])
  assert.deepEqual(result.defects, [])
  assert.ok(result.peakBytes <= quotaBytes + result.largestBytes, `${result.peakBytes} bytes on the disk`)
})
