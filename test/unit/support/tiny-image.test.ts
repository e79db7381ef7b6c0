import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { DOCKER_MANIFEST, OCI_INDEX } from '../../../src/oci/media-types.ts'
import {
  bytesOf,
  contentDigest,
  generateImages,
  layerOf,
  seededContent,
  shapeNames,
  tinyArtifact,
  tinyImage,
  tinyIndex,
  withReferrers,
  type TinyImage,
} from '../../support/tiny-image.ts'

/** Every digest in the JSON that is followed by a size, wherever it stands. */
function descriptors(
  json: unknown,
): readonly { readonly digest: string; readonly size: number; readonly isForeign: boolean }[] {
  if (typeof json !== 'object' || json === null) return []
  const inner = Object.entries(json).flatMap(([key, value]) => (key === 'subject' ? [] : descriptors(value)))
  if (!('digest' in json && 'size' in json)) return inner
  assert.ok(typeof json.digest === 'string' && typeof json.size === 'number')
  return [{ digest: json.digest, size: json.size, isForeign: 'urls' in json }, ...inner]
}

const jsonOf = (bytes: Uint8Array): unknown => JSON.parse(Buffer.from(bytes).toString())

const rootJson = (image: TinyImage): string => Buffer.from(image.root.bytes).toString()

test('seeded content is the same however it is cut', () => {
  const content = seededContent('cut', 5000)
  const whole = Buffer.from(bytesOf(content))
  for (const [from, to] of [
    [0, 5000],
    [1, 17],
    [15, 16],
    [16, 32],
    [4999, 5000],
    [7, 7],
  ] as const) {
    assert.deepEqual(Buffer.from(content.slice(from, to)), whole.subarray(from, to))
  }
  assert.notDeepEqual(whole, Buffer.from(bytesOf(seededContent('other', 5000))))
})

test('content beyond 4 GiB can be read at any offset', () => {
  const far = seededContent('far', 2 ** 36)
  assert.equal(far.slice(2 ** 35 + 3, 2 ** 35 + 40).length, 37)
})

test('images are the same for the same seed and differ for another', () => {
  const digests = (seed: string): string =>
    JSON.stringify(generateImages({ seed, count: shapeNames.length }).map(({ root }) => root.digest))
  assert.equal(digests('a'), digests('a'))
  assert.notEqual(digests('a'), digests('b'))
})

test('every digest and size is true, and everything a manifest names is there', () => {
  const images = generateImages({ seed: 'closure', count: 200 })
  assert.equal(images.length, 200)
  assert.deepEqual(new Set(images.map(({ shape }) => shape)), new Set(shapeNames))
  assert.equal(new Set(images.map(({ repository }) => repository)).size, 200)
  for (const image of images) {
    const sizes = new Map<string, number>()
    for (const { digest, bytes } of image.manifests) sizes.set(digest, bytes.length)
    for (const { digest, content } of image.blobs) sizes.set(digest, content.size)
    for (const { digest, bytes } of image.manifests) {
      const [algorithm = '', hex] = digest.split(':')
      assert.equal(createHash(algorithm).update(bytes).digest('hex'), hex)
      for (const named of descriptors(jsonOf(bytes))) {
        if (named.isForeign) assert.equal(sizes.get(named.digest), undefined, image.shape)
        else assert.equal(sizes.get(named.digest), named.size, `${image.shape}: ${named.digest}`)
      }
    }
    for (const { digest, content } of image.blobs)
      assert.equal(contentDigest(content, digest.startsWith('sha512') ? 'sha512' : 'sha256'), digest)
    assert.ok(image.manifests.includes(image.root))
  }
})

test('layers are tar archives whose diff id is that of the archive', () => {
  for (const [compression, unpack] of [
    ['gzip', gunzipSync],
    ['zstd', zstdDecompressSync],
  ] as const) {
    const layer = layerOf('seed', { compression, bytes: 700 })
    const archive = unpack(bytesOf(layer.content))
    assert.equal(`sha256:${createHash('sha256').update(archive).digest('hex')}`, layer.diffId)
    assert.equal(archive.toString('latin1', 257, 262), 'ustar')
    assert.match(layer.mediaType, new RegExp(`${compression}$`))
    assert.equal(archive.length, 512 + 1024 + 1024)
  }
})

test('spellings differ in bytes only', () => {
  const options = { seed: 's', annotations: { title: 'Entrepôt 🚢 a/b' } }
  const spelt = (['compact', 'indented', 'tabs-crlf', 'reversed-keys', 'escaped'] as const).map((spelling) =>
    tinyImage({ ...options, spelling }),
  )
  assert.equal(new Set(spelt.map(({ root }) => root.digest)).size, 5)
  for (const { root } of spelt) assert.deepEqual(jsonOf(root.bytes), jsonOf(spelt[0]?.root.bytes ?? Buffer.from('{}')))
})

test('options show in the manifest', () => {
  assert.equal(tinyImage({ seed: 's', family: 'docker' }).root.mediaType, DOCKER_MANIFEST)
  assert.doesNotMatch(rootJson(tinyIndex({ seed: 's', namesItsType: false })), new RegExp(`"${OCI_INDEX}"`))
  assert.match(tinyImage({ seed: 's', algorithm: 'sha512' }).root.digest, /^sha512:[0-9a-f]{128}$/)
  const image = tinyIndex({ seed: 's' })
  const sbom = tinyArtifact({ seed: 'sbom', subject: image.root, artifactType: 'application/x' })
  assert.ok(rootJson(sbom).includes(image.root.digest))
  assert.equal(withReferrers(image, [sbom]).manifests.at(-1), sbom.root)
  const signed = tinyIndex({ seed: 's', subject: image.root, annotations: { of: 'the index' } })
  assert.ok(rootJson(signed).includes('the index'))
  const children = signed.manifests.filter((manifest) => manifest !== signed.root)
  assert.ok(children.length === 2 && children.every(({ bytes }) => !Buffer.from(bytes).includes(image.root.digest)))
})
