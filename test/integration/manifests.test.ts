/** What is no manifest, or not the one that was asked, is refused before it is stored and before it is served. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { test } from 'node:test'
import { fault, type Step } from '../support/fault-script.ts'
import { startPair } from '../support/gateway-pair.ts'
import { blobOf, descriptorOf, imageManifest, manifestOf, seededBlob, tinyImage } from '../support/tiny-image.ts'

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const image = tinyImage({ seed: 'right', repository: 'acme/app', tag: '1' })
const other = tinyImage({ seed: 'other', repository: 'acme/app' })
const config = blobOf('{}', { mediaType: 'application/vnd.oci.image.config.v1+json' })

const HEADER_LIE = 'a digest that is not the body’s'
const LIES: Readonly<Record<string, Step>> = {
  [HEADER_LIE]: fault.header('Docker-Content-Digest', other.root.digest),
  'a flipped byte': fault.corrupt(3),
  'HTML that says it is a manifest': fault.status(200, { 'Content-Type': OCI_MANIFEST }, '<html></html>'),
  'an HTML page': fault.html(),
  'the type of an index': fault.header('Content-Type', OCI_INDEX),
  'an endless body': fault.hugeBody(100 * 1024 * 1024),
  'half a body that looks whole': [fault.resize(-10), fault.noDigest()],
  'deep JSON': fault.status(200, { 'Content-Type': OCI_MANIFEST }, '['.repeat(200_000)),
}

test('a manifest that is not what was asked is 502, is not kept, and the next one is right', async () => {
  await using pair = await startPair()
  for (const [number, [name, lie]] of Object.entries(LIES).entries()) {
    for (const way of ['tag', 'digest'] as const) {
      // By digest the body decides, whatever a header says of it.
      if (name === HEADER_LIE && way === 'digest') continue
      const repository = `acme/${way}-${number}`
      const asked = tinyImage({ seed: `${name} ${way}`, repository, tag: '1' })
      pair.registry.load(asked)
      const path = `${repository}/manifests/${way === 'tag' ? '1' : asked.root.digest}`
      pair.registry.script({ kind: 'manifest' }, lie)
      assert.equal((await pair.get(path)).status, 502, `${name}, ${way}`)
      const names = await readdir(pair.gateway.data, { recursive: true })
      assert.ok(!names.some((file) => file.includes(asked.root.digest.slice(7)) || file.includes(repository)), name)
      const answer = await pair.get(path)
      assert.ok(answer.status === 200 && answer.body.equals(Buffer.from(asked.root.bytes)), `${name}, ${way}`)
    }
  }
})

test('an ambiguous document is refused, a strange but clear one is served as it is', async () => {
  await using pair = await startPair()
  const layers = [descriptorOf(seededBlob('x', 10))]
  const both = { schemaVersion: 2, config: descriptorOf(config), layers, manifests: [] }
  const future = manifestOf({ schemaVersion: 2, new: true }, 'application/vnd.example.future.v9+json')
  const repository = pair.registry.repository('acme/app')
  repository.tag('both', manifestOf(both, OCI_MANIFEST)).tag('future', future)
  assert.equal((await pair.get('acme/app/manifests/both')).status, 502)
  for (let round = 0; round < 2; round++) {
    const answer = await pair.get('acme/app/manifests/future')
    assert.deepEqual([answer.status, answer.headers['content-type']], [200, future.mediaType])
    assert.ok(answer.body.equals(Buffer.from(future.bytes)))
  }
})

test('without a digest header, with a generic type, or with type parameters a manifest is what its bytes say', async () => {
  const odd: readonly Step[] = [
    fault.noDigest(),
    fault.header('Content-Type', 'application/json'),
    fault.header('Content-Type', undefined),
    fault.header('Content-Type', `${OCI_MANIFEST}; charset=utf-8`),
  ]
  for (const step of odd) {
    await using pair = await startPair()
    pair.registry.load(image)
    pair.registry.script({ kind: 'manifest' }, step)
    for (const method of ['HEAD', 'GET'] as const) {
      const answer = await pair.get('acme/app/manifests/1', { method })
      assert.deepEqual(
        [answer.status, answer.headers['content-type'], answer.headers['docker-content-digest']],
        [200, image.root.mediaType, image.root.digest],
      )
    }
  }
})

test('a manifest of 4 MiB is served and one byte more is not', async () => {
  await using pair = await startPair()
  const padded = (size: number): ReturnType<typeof imageManifest> => {
    const empty = imageManifest(config, [], { annotations: { pad: '' } }).bytes.length
    return imageManifest(config, [], { annotations: { pad: 'x'.repeat(size - empty) } })
  }
  const [largest, larger] = [padded(4 * 1024 * 1024), padded(4 * 1024 * 1024 + 1)]
  assert.equal(largest.bytes.length, 4 * 1024 * 1024)
  pair.registry.repository('acme/app').tag('largest', largest).tag('larger', larger)
  assert.equal((await pair.get('acme/app/manifests/largest')).status, 200)
  assert.equal((await pair.get('acme/app/manifests/larger')).status, 502)
})

test('nothing a manifest names is fetched by itself, whatever address it gives', async () => {
  await using pair = await startPair()
  const layer = {
    ...descriptorOf(
      seededBlob('foreign', 10, { mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' }),
    ),
    urls: [`${pair.registry.url}/foreign`, 'http://169.254.169.254/'],
  }
  pair.registry
    .repository('acme/app')
    .tag('1', imageManifest(config, [layer]))
    .add(config)
  await pair.get('acme/app/manifests/1')
  assert.equal((await pair.get(`acme/app/blobs/${config.digest}`)).status, 200)
  assert.equal((await pair.get(`acme/app/blobs/${layer.digest}`)).status, 404)
  assert.equal(pair.registry.count(/foreign/), 0)
})

test('If-Range keeps a range only for the very blob, and If-None-Match on a blob needs the right to it', async () => {
  await using pair = await startPair()
  const blob = seededBlob('conditional', 1000)
  pair.registry.repository('acme/app').add(blob)
  const path = `acme/app/blobs/${blob.digest}`
  const status = async (headers: Readonly<Record<string, string>>): Promise<number> =>
    (await pair.get(path, { headers })).status
  for (const round of ['cold', 'held']) {
    assert.equal(await status({ 'if-none-match': `"${blob.digest}"` }), 304, round)
    assert.equal(await status({ range: 'bytes=0-9', 'if-range': `"${blob.digest}"` }), 206, round)
    assert.equal(await status({ range: 'bytes=0-9', 'if-range': '"other"' }), 200, round)
    assert.equal(await status({ range: 'bytes=0-9', 'if-range': 'Wed, 01 Jan 2025 00:00:00 GMT' }), 200, round)
  }
  const missing = await pair.get(`acme/other/blobs/${blob.digest}`, {
    headers: { 'if-none-match': `"${blob.digest}"` },
  })
  assert.equal(missing.status, 404)
})
