/** The folder is the truth: what is in it serves again after a stop, what was half there goes on, what is wrong goes. */
import assert from 'node:assert/strict'
import { cp, readdir, rm, stat, truncate, writeFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask, type Answer } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { startTestGateway, type TestGateway } from '../support/start-gateway.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bytesOf, imageManifest, seededBlob, tinyImage, type Blob, type TinyImage } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB

function again(pair: GatewayPair, data = pair.gateway.data): Promise<TestGateway> {
  const upstreams = { origin: `url: ${pair.registry.url}\nfill: { complete: never }` }
  return startTestGateway({ upstreams, default: 'origin', data })
}

function dataFile(data: string, { digest }: Pick<Blob, 'digest'>): string {
  const hex = digest.slice('sha256:'.length)
  return join(data, 'origin/docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data')
}

async function pullAll(url: string, image: TinyImage): Promise<void> {
  const base = `${url}/v2/${image.repository}`
  const root = await ask(`${base}/manifests/${image.tag}`)
  assert.deepEqual([root.status, root.headers['content-type']], [200, image.root.mediaType])
  for (const { digest, bytes, mediaType } of image.manifests) {
    const answer = await ask(`${base}/manifests/${digest}`)
    assert.deepEqual([answer.status, answer.headers['content-type']], [200, mediaType])
    assert.ok(answer.body.equals(Buffer.from(bytes)))
  }
  for (const { digest, content } of image.blobs) {
    const answer = await ask(`${base}/blobs/${digest}`)
    assert.ok(answer.isComplete && answer.body.equals(bytesOf(content)), `${digest}: ${answer.status}`)
  }
}

test('what was pulled serves after a restart without the upstream, with the types it came with', async () => {
  await using pair = await startPair()
  const images = [
    tinyImage({ seed: 'plain', repository: 'acme/a' }),
    tinyImage({ seed: 'typeless', repository: 'acme/b', namesItsType: false }),
    tinyImage({ seed: 'sha512', repository: 'acme/c', blobAlgorithm: 'sha512', algorithm: 'sha512' }),
    tinyImage({ seed: 'docker', repository: 'acme/d', family: 'docker', namesItsType: false }),
  ]
  pair.registry.load(...images)
  for (const image of images) await pullAll(pair.gateway.url, image)
  await pair.gateway.stop()
  await pair.registry.close()
  await using gateway = await again(pair)
  for (const image of images) await pullAll(gateway.url, image)
})

test('without its ledger, or copied elsewhere, the folder serves the same; every blob is hashed again first', async () => {
  await using pair = await startPair()
  const image = tinyImage({ seed: 'copied', repository: 'acme/app', layerBytes: 600 * KiB, compression: 'none' })
  pair.registry.load(image)
  await pullAll(pair.gateway.url, image)
  await pair.gateway.stop()
  await pair.registry.close()
  await using folder = await temporaryFolder()
  const data = join(folder.path, 'copy')
  await cp(pair.gateway.data, data, { recursive: true })
  for (const name of await readdir(data)) if (name.startsWith('ledger')) await rm(join(data, name))
  await using gateway = await again(pair, data)
  await pullAll(gateway.url, image)
  const verified = gateway.events.filter(({ event }) => event === 'fill.committed').length
  assert.equal(verified, image.blobs.length)
  await pullAll(gateway.url, image)
  assert.equal(gateway.events.filter(({ event }) => event === 'fill.committed').length, verified)
})

test('a transfer that a stop cut goes on where it was, and the whole costs its length once', async () => {
  for (const isNamed of [true, false]) {
    await using pair = await startPair({ main: '', upstream: 'fill: { complete: never }' })
    const blob = seededBlob(`half ${isNamed}`, 4 * MiB)
    const config = seededBlob('config', 100, { mediaType: 'application/vnd.oci.image.config.v1+json' })
    pair.registry
      .repository('acme/app')
      .add(config, blob)
      .tag('1', imageManifest(config, [blob]))
    if (isNamed) await pair.get('acme/app/manifests/1')
    pair.registry.script({ kind: 'blob', method: 'GET' }, fault.stall(3 * MiB))
    const path = `/v2/acme/app/blobs/${blob.digest}`
    await ask(pair.gateway.url + path, { leaveAfter: 2 * MiB })
    const body = join(pair.gateway.data, 'origin/incoming', blob.digest.replace(':', '-'))
    await until('3 MiB are here', async () => (await stat(body)).size >= 3 * MiB)
    await pair.gateway.stop()
    await using gateway = await again(pair)
    const answer = await ask(gateway.url + path)
    assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)))
    assert.ok(pair.registry.trafficOf(blob.digest) <= 1.05 * blob.content.size, `named ${isNamed}`)
  }
})

const DAMAGE: Readonly<Record<string, (path: string) => Promise<void>>> = {
  deleted: (path) => rm(path),
  truncated: (path) => truncate(path, 1000),
  emptied: (path) => truncate(path, 0),
  'a byte flipped': async (path) => {
    const bytes = await readFile(path)
    bytes[10] = (bytes[10] ?? 0) ^ 0xff
    await writeFile(path, bytes)
  },
}

test('a file deleted, cut or changed under a live gateway is never served wrong, and comes again', async () => {
  await using pair = await startPair({ upstream: 'fill: { complete: never }' })
  for (const size of [10 * KiB, 600 * KiB]) {
    for (const [name, damage] of Object.entries(DAMAGE)) {
      const blob = seededBlob(`${name} ${size}`, size)
      pair.registry.repository('acme/app').add(blob)
      const get = (): Promise<Answer | undefined> => pair.get(`acme/app/blobs/${blob.digest}`).catch(() => undefined)
      assert.equal((await get())?.status, 200)
      await until('it is durable', () => pair.logged('fill.committed', { digest: blob.digest }) > 0)
      await damage(dataFile(pair.gateway.data, blob))
      const first = await get()
      const isRight = first?.body.equals(bytesOf(blob.content)) === true
      assert.ok(first?.isComplete !== true || isRight, `${name}, ${size} bytes`)
      if (size < 256 * KiB) assert.ok(isRight, `${name}: a small one is fetched again before it is answered`)
      const second = await get()
      assert.ok(second?.isComplete && second.body.equals(bytesOf(blob.content)), `${name}, ${size} bytes, again`)
    }
  }
  assert.ok(pair.logged('blob.quarantined') > 0)
  assert.equal(pair.logged('defect.caught'), 0)
})

test('HEAD of a cut file tells the length that the manifest names', async () => {
  await using pair = await startPair({ upstream: 'fill: { complete: never }' })
  const image = tinyImage({ seed: 'head', repository: 'acme/app', tag: '1', layerBytes: 5 * KiB, compression: 'none' })
  pair.registry.load(image)
  await pullAll(pair.gateway.url, image)
  const layer = image.blobs.at(-1)
  assert.ok(layer)
  await truncate(dataFile(pair.gateway.data, layer), 100)
  const head = await pair.get(`acme/app/blobs/${layer.digest}`, { method: 'HEAD' })
  assert.equal(head.headers['content-length'], String(layer.content.size))
})

test('a damaged manifest file is put aside and fetched again', async () => {
  await using pair = await startPair()
  const image = tinyImage({ seed: 'manifest', repository: 'acme/app', tag: '1' })
  pair.registry.load(image)
  await pullAll(pair.gateway.url, image)
  await pair.gateway.stop()
  const path = dataFile(pair.gateway.data, image.root)
  await writeFile(path, (await readFile(path, 'utf8')).replace('"size":', '"size":1'))
  await using gateway = await again(pair)
  await pullAll(gateway.url, image)
  assert.equal(gateway.events.filter(({ event }) => event === 'blob.quarantined').length, 1)
})
