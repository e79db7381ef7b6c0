/** With no room to store, pulls go through unstored, checked as ever, and what is held goes on being served. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair } from '../support/gateway-pair.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { bytesOf, seededBlob } from '../support/tiny-image.ts'

const KiB = 1024
const FULL =
  'listen: [{ address: 127.0.0.1:0, default: origin }]\nadmin: { address: 127.0.0.1:0 }\nkeep: { free: 100% }'

test('a disk without room passes blobs through: whole, in ranges, by HEAD, and never wrong', async () => {
  await using pair = await startPair({ main: FULL })
  const { registry, gateway, get } = pair
  const blob = seededBlob('through', 600 * KiB)
  registry.repository('acme/app').add(blob)
  const path = `acme/app/blobs/${blob.digest}`
  const bytes = bytesOf(blob.content)
  for (let round = 0; round < 2; round++) {
    const whole = await get(path)
    assert.ok(whole.isComplete && whole.body.equals(bytes))
    assert.equal(whole.headers['cache-status'], 'entrepot; fwd=bypass')
  }
  const range = await get(path, { headers: { range: 'bytes=1000-1999' } })
  assert.ok(range.status === 206 && range.body.equals(bytes.subarray(1000, 2000)))
  assert.equal((await get(path, { method: 'HEAD' })).headers['content-length'], String(bytes.length))
  for (const wrong of [fault.corrupt(5), fault.corrupt(-1), fault.cut(300 * KiB), fault.resize(10)]) {
    registry.script({ kind: 'blob', method: 'GET' }, wrong)
    const answer = await get(path).catch(() => undefined)
    assert.ok(answer?.status !== 200 || !answer.isComplete, wrong.kind)
  }
  assert.equal((await get(`acme/app/blobs/sha256:${'0'.repeat(64)}`)).status, 404)
  const names = await readdir(join(gateway.data), { recursive: true })
  assert.ok(!names.some((name) => name.includes(blob.digest.slice(7))))
})

test('what is held is served from a full disk', async () => {
  await using pair = await startPair()
  const blob = seededBlob('held', 10 * KiB)
  pair.registry.repository('acme/app').add(blob)
  const path = `acme/app/blobs/${blob.digest}`
  await pair.get(path)
  await pair.gateway.stop()
  await using full = await startTestGateway({
    upstreams: { origin: `url: ${pair.registry.url}` },
    main: FULL,
    data: pair.gateway.data,
  })
  const answer = await ask(`${full.url}/v2/${path}`)
  assert.equal(answer.headers['cache-status'], 'entrepot; hit')
})
