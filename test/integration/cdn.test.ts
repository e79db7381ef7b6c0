/** Blobs that a registry redirects to a CDN: signed URLs serve within one transfer and are never kept. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fault } from '../support/fault-script.ts'
import { startPair, type GatewayPair } from '../support/gateway-pair.ts'
import type { CdnOptions } from '../support/scripted-registry.ts'
import { bytesOf, seededBlob, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB

async function offer(
  cdn: CdnOptions,
  size = MiB,
): Promise<GatewayPair & { readonly blob: Blob; readonly path: string }> {
  const pair = await startPair({
    registry: { cdn },
    upstream: 'network: { allowPrivate: [127.0.0.0/8] }\nfill: { from: 4MiB }',
  })
  const blob = seededBlob('redirected', size)
  pair.registry.repository('acme/app').add(blob)
  return { ...pair, blob, path: `acme/app/blobs/${blob.digest}` }
}

test('a URL that serves once is asked for again when its transfer is cut, and again by the next pull', async () => {
  await using pair = await offer({ isSingleUse: true })
  pair.registry.cdn?.script({}, fault.cut(300 * KiB), fault.reset(300 * KiB))
  const answer = await pair.get(pair.path)
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  assert.equal(answer.headers['location'], undefined)
  assert.equal(pair.registry.overlap(pair.blob.digest), 0)
})

test('a URL that expires in the middle is renewed and the rest comes by Range', async () => {
  await using pair = await offer({})
  const half = Promise.withResolvers<void>()
  pair.registry.cdn?.script({}, [fault.stall(500 * KiB, half.promise), fault.cut(500 * KiB)])
  const pulling = pair.get(pair.path)
  await pair.registry.cdn?.arrived({})
  pair.registry.cdn?.expireAll()
  half.resolve()
  const answer = await pulling
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  assert.ok(pair.registry.trafficOf(pair.blob.digest) <= pair.blob.content.size)
})

test('segments of a large blob share one redirect', async () => {
  await using pair = await offer({}, 20 * MiB)
  const head = await pair.get(pair.path, { headers: { range: 'bytes=0-9' } })
  assert.equal(head.status, 206)
  const answer = await pair.get(pair.path)
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  // The one byte is how the length is asked where HEAD is redirected away.
  assert.equal(pair.registry.trafficOf(pair.blob.digest), pair.blob.content.size + 1)
  assert.ok(pair.registry.count({ kind: 'blob' }) <= 6)
})

test('a CDN that refuses, is away, or is no place to go is an error that says nothing of the blob', async () => {
  await using pair = await offer({})
  for (const failing of [fault.status(403), fault.status(500), fault.html()]) {
    pair.registry.cdn?.clearScripts()
    pair.registry.cdn?.scriptAlways({}, failing)
    const answer = await pair.get(pair.path)
    assert.ok(answer.status === 503 || answer.status === 502, `${failing.kind}: ${answer.status}`)
  }
  pair.registry.cdn?.clearScripts()
  pair.registry.scriptAlways({ kind: 'blob' }, fault.redirect('http://169.254.169.254/latest'))
  assert.equal((await pair.get(pair.path)).status, 503)
})
