/** A kept image is a whole image: after a real pull the rest of its platform, its referrers and signatures follow. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import {
  bytesOf,
  descriptorOf,
  indexOf,
  seededBlob,
  tinyArtifact,
  tinyImage,
  type TinyImage,
} from '../support/tiny-image.ts'

const amd64 = tinyImage({
  seed: 'amd64',
  repository: 'acme/app',
  layers: 4,
  platform: { os: 'linux', architecture: 'amd64' },
})
const arm64 = tinyImage({
  seed: 'arm64',
  repository: 'acme/app',
  layers: 4,
  platform: { os: 'linux', architecture: 'arm64' },
})
const index = indexOf([
  { ...descriptorOf(amd64.root), platform: { os: 'linux', architecture: 'amd64' } },
  { ...descriptorOf(arm64.root), platform: { os: 'linux', architecture: 'arm64' } },
])
const sbom = tinyArtifact({ seed: 'sbom', repository: 'acme/app', subject: amd64.root })
const signature = tinyArtifact({
  seed: 'signature',
  repository: 'acme/app',
  artifactType: 'application/vnd.dev.cosign',
})

async function offer(upstream = ''): Promise<GatewayPair> {
  const pair = await startPair({ upstream })
  const repository = pair.registry.repository('acme/app')
  for (const { manifests, blobs } of [amd64, arm64, sbom, signature]) repository.add(...manifests, ...blobs)
  repository.tag('1', index)
  repository.tag(`${index.digest.replace(':', '-')}.sig`, signature.root)
  return pair
}

async function pullOneLayer({ get }: GatewayPair): Promise<void> {
  assert.equal((await get('acme/app/manifests/1')).status, 200)
  assert.equal((await get(`acme/app/manifests/${amd64.root.digest}`)).status, 200)
  assert.equal((await get(`acme/app/blobs/${amd64.blobs.at(-1)?.digest}`)).status, 200)
}

async function status({ get }: GatewayPair, path: string): Promise<number> {
  return (await get(`acme/app/${path}`)).status
}

async function assertWhole(pair: GatewayPair, image: TinyImage): Promise<void> {
  for (const { digest, content } of image.blobs) {
    const answer = await pair.get(`acme/app/blobs/${digest}`)
    assert.ok(answer.status === 200 && answer.body.equals(bytesOf(content)), `${image.shape} ${digest}`)
  }
}

test('after one layer of one platform the whole of it serves without the upstream, with SBOM and signature', async () => {
  await using pair = await offer()
  await pullOneLayer(pair)
  const sent = (image: TinyImage): boolean =>
    image.blobs.every(({ digest }) => pair.registry.transfers(digest).length === 1)
  await until('the rest follows', () => sent(amd64) && sent(sbom) && sent(signature))
  await until('it is stored', () => pair.logged('fill.committed') >= 5 + 2 + 1)
  await pair.registry.close()
  assert.equal(await status(pair, 'manifests/1'), 200)
  await assertWhole(pair, amd64)
  const referrers = await pair.get(`acme/app/referrers/${amd64.root.digest}`)
  assert.match(referrers.body.toString(), new RegExp(sbom.root.digest))
  assert.equal(await status(pair, `manifests/${sbom.root.digest}`), 200)
  await assertWhole(pair, sbom)
  assert.equal(await status(pair, `manifests/${index.digest.replace(':', '-')}.sig`), 200)
  await assertWhole(pair, signature)
  // The other platform was nobody's wish.
  assert.equal(await status(pair, `blobs/${arm64.blobs.at(-1)?.digest}`), 503)
})

test('never, a range, a config, HEAD, or an image above completeMax bring nothing else', async () => {
  const ways: Readonly<Record<string, (pair: GatewayPair) => Promise<unknown>>> = {
    'fill: { complete: never }': pullOneLayer,
    'fill: { completeMax: 100B }': pullOneLayer,
    'fill: { complete: onPull }': async (pair) => {
      await pair.get(`acme/app/manifests/${amd64.root.digest}`)
      await pair.get(`acme/app/blobs/${amd64.blobs[0]?.digest}`)
      await pair.get(`acme/app/blobs/${amd64.blobs[1]?.digest}`, { headers: { range: 'bytes=0-9' } })
      await pair.get(`acme/app/blobs/${amd64.blobs[2]?.digest}`, { method: 'HEAD' })
    },
  }
  for (const [upstream, pull] of Object.entries(ways)) {
    await using pair = await offer(upstream)
    await pull(pair)
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.equal(pair.registry.transfers(amd64.blobs[3]?.digest ?? amd64.root.digest).length, 0, upstream)
  }
})

test('a layer that the upstream lacks leaves the image incomplete, says so, and harms no pull', async () => {
  await using pair = await offer()
  const missing = amd64.blobs[2]
  assert.ok(missing)
  pair.registry.repository('acme/app').blobs.delete(missing.digest)
  await pullOneLayer(pair)
  await until('it is said', () => pair.logged('image.incomplete', { code: 'BLOB_UNKNOWN' }) === 1)
  // In an outage every pull would try, and say, the same again: once a minute will do.
  for (let pulls = 0; pulls < 5; pulls++) await pullOneLayer(pair)
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.equal(pair.logged('image.incomplete'), 1)
  assert.equal(await status(pair, `blobs/${amd64.blobs[1]?.digest}`), 200)
})

test('a layer shared by many images completes only the one that is being pulled', async () => {
  await using pair = await startPair()
  const base = seededBlob('base', 1000, { mediaType: 'application/vnd.oci.image.layer.v1.tar' })
  const images = ['a', 'b', 'c'].map((seed) =>
    tinyImage({ seed, repository: 'acme/app', tag: seed, baseLayers: [base] }),
  )
  pair.registry.load(...images)
  const [pulled, ...others] = images
  // Known by HEAD alone, as update checkers do.
  for (const { tag } of others) await pair.get(`acme/app/manifests/${tag}`, { method: 'HEAD' })
  await pair.get(`acme/app/manifests/${pulled?.tag}`)
  await pair.get(`acme/app/blobs/${base.digest}`)
  await until('it is complete', () => pair.logged('fill.committed') === pulled?.blobs.length)
  await new Promise((resolve) => setTimeout(resolve, 100))
  for (const { blobs } of others) assert.equal(pair.registry.transfers(blobs.at(-1)?.digest ?? base.digest).length, 0)
})
