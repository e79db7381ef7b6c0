/** Any number of clients cost one upstream transfer, and each gets bytes as they arrive. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent } from 'node:http'
import { ask, askDigest } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTokenServer } from '../support/scripted-token-server.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { imageManifest, layerOf, seededBlob, tinyImage } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB

test('200 clients that pull one cold image cause one GET per manifest and blob, one token, and no byte twice', async (t) => {
  await using tokens = await startTokenServer({ anonymousPulls: ['**'] })
  await using registry = await startScriptedRegistry({ auth: tokens.auth(), publicNeedsToken: true })
  const layers = Array.from({ length: 5 }, (_, index) =>
    layerOf(`layer ${index}`, { bytes: 100 * KiB, compression: 'none' }),
  )
  const big = seededBlob('segments', 40 * MiB, { mediaType: layers[0]?.mediaType ?? '' })
  const config = seededBlob('config', 2 * KiB, { mediaType: 'application/vnd.oci.image.config.v1+json' })
  const blobs = [config, ...layers, big]
  const image = imageManifest(config, [...layers, big])
  const repository = registry.repository('acme/app')
  repository.isPrivate = false
  repository.add(...blobs).tag('1', image)
  await using gateway = await startTestGateway({
    upstreams: {
      origin: `url: ${registry.url}\nfill: { complete: never }\nnetwork: { realms: ['${new URL(tokens.url).host}'], allowPrivate: [127.0.0.0/8] }`,
    },
    default: 'origin',
  })
  // Delays make first bytes comparable: the upstream's first byte comes then, a client's at most 200 ms later.
  const delayMs = 300
  registry.scriptAlways({ kind: 'blob' }, fault.delay(delayMs))
  // Everybody pulls the image; who also pulls its large layer, and hashes it here, is what the test's time goes into.
  const pull = async (_: unknown, index: number): Promise<number> => {
    const agent = new Agent({ keepAlive: true, maxSockets: 3 })
    const base = `${gateway.url}/v2/acme/app`
    const head = await ask(`${base}/manifests/1`, { method: 'HEAD', agent })
    assert.equal(head.headers['docker-content-digest'], image.digest)
    const manifest = await ask(`${base}/manifests/${image.digest}`, { agent })
    assert.ok(manifest.body.equals(Buffer.from(image.bytes)))
    const wanted = index < 20 ? blobs : blobs.filter((blob) => blob !== big)
    const pulled = await Promise.all(wanted.map(({ digest }) => askDigest(`${base}/blobs/${digest}`, { agent })))
    for (const [at, { digest, status, isComplete }] of pulled.entries()) {
      assert.deepEqual([status, isComplete, digest], [200, true, wanted[at]?.digest])
    }
    agent.destroy()
    return Math.max(...pulled.map(({ firstByteMs }) => firstByteMs))
  }
  const slowest = Math.max(...(await Promise.all(Array.from({ length: 200 }, pull))))
  for (const { digest, content } of blobs) {
    assert.equal(registry.trafficOf(digest) / content.size, 1, `upstream bytes / blob bytes of ${digest}`)
    const transfers = registry.segments(digest)
    assert.equal(transfers.length, content.size > 32 * MiB ? 5 : 1)
    assert.equal(registry.overlap(digest), 0)
  }
  assert.equal(registry.count({ method: 'GET', kind: 'manifest', status: 200 }), 1)
  assert.equal(tokens.count({ kind: 'token' }), 1)
  t.diagnostic(`slowest first byte ${slowest.toFixed(0)} ms, the upstream's own ${delayMs} ms`)
})

test('200 clients of a slow blob all read it while it comes', async (t) => {
  await using registry = await startScriptedRegistry()
  const blob = seededBlob('slow', 2 * MiB)
  registry.repository('acme/app').add(blob)
  await using gateway = await startTestGateway({
    upstreams: { origin: `url: ${registry.url}` },
    default: 'origin',
  })
  registry.scriptAlways({ kind: 'blob' }, fault.rate(2 * MiB))
  const startedAt = performance.timeOrigin + performance.now()
  const url = `${gateway.url}/v2/acme/app/blobs/${blob.digest}`
  const pulled = await Promise.all(Array.from({ length: 200 }, () => askDigest(url)))
  const [upstream] = registry.requests.filter(({ kind, status }) => kind === 'blob' && status === 200)
  const upstreamFirstByteMs = (upstream?.firstByteAt ?? Infinity) - startedAt
  const late = Math.max(...pulled.map(({ firstByteMs }) => firstByteMs)) - upstreamFirstByteMs
  assert.ok(pulled.every(({ digest, isComplete }) => isComplete && digest === blob.digest))
  // A client that had waited for the whole would have its first byte after the upstream's last.
  assert.equal(registry.transfers(blob.digest).length, 1)
  t.diagnostic(`slowest first byte ${late.toFixed(0)} ms after the upstream's first byte, 200 clients`)
})

test('one hundred concurrent requests for a tag cause one HEAD when it is stale and nothing when it is fresh', async () => {
  const clock = new ManualClock()
  await using registry = await startScriptedRegistry()
  registry.load(tinyImage({ seed: 'one', repository: 'acme/app', tag: '1' }))
  await using gateway = await startTestGateway({
    upstreams: { origin: `url: ${registry.url}` },
    default: 'origin',
    clock,
  })
  const url = `${gateway.url}/v2/acme/app/manifests/1`
  const storm = (): Promise<unknown> => Promise.all(Array.from({ length: 100 }, () => ask(url)))
  await storm()
  assert.deepEqual([registry.count({ method: 'GET', kind: 'manifest' }), registry.count({ method: 'HEAD' })], [1, 0])
  clock.advance(2 * 60_000)
  await storm()
  assert.deepEqual([registry.count({ method: 'GET', kind: 'manifest' }), registry.count({ method: 'HEAD' })], [1, 1])
})
