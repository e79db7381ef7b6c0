import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OCI_INDEX, OCI_MANIFEST } from '../../../src/oci/media-types.ts'
import { fault } from '../../support/fault-script.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import {
  bytesOf,
  contentDigest,
  contentOf,
  generateImages,
  seededBlob,
  shapeNames,
  tinyArtifact,
  tinyImage,
  tinyIndex,
  withReferrers,
} from '../../support/tiny-image.ts'

const image = tinyImage({ seed: 'registry', repository: 'library/tiny', tag: '1.0' })
const [config] = image.blobs
assert.ok(config !== undefined)
const path = '/v2/library/tiny'

async function get(
  url: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Response & { readonly bytes: Buffer }> {
  const response = await fetch(url, { method, headers, redirect: 'manual' })
  return Object.assign(response, { bytes: Buffer.from(await response.arrayBuffer()) })
}

test('images of every shape are served byte for byte, by tag and by digest, GET and HEAD', async () => {
  const images = generateImages({ seed: 'serve', count: shapeNames.length })
  await using registry = await startScriptedRegistry()
  registry.load(...images)
  for (const { repository, tag, root, manifests, blobs } of images) {
    const tagged = await get(`${registry.url}/v2/${repository}/manifests/${tag}`, {}, 'HEAD')
    assert.equal(tagged.headers.get('docker-content-digest'), root.digest)
    assert.equal(tagged.headers.get('content-length'), String(root.bytes.length))
    for (const manifest of manifests) {
      const got = await get(`${registry.url}/v2/${repository}/manifests/${manifest.digest}`)
      assert.deepEqual(got.bytes, Buffer.from(manifest.bytes))
      assert.equal(got.headers.get('content-type'), manifest.mediaType)
      assert.equal(got.headers.get('etag'), `"${manifest.digest}"`)
    }
    for (const blob of blobs.slice(0, 5)) {
      const got = await get(`${registry.url}/v2/${repository}/blobs/${blob.digest}`)
      assert.deepEqual(got.bytes, Buffer.from(bytesOf(blob.content)))
    }
  }
})

test('ping, unknown things and writes are answered as the spec says', async () => {
  await using registry = await startScriptedRegistry()
  registry.load(image)
  const absent = `sha256:${'0'.repeat(64)}`
  const table: readonly (readonly [string, string, number, string])[] = [
    ['GET', '/v2/', 200, '{}'],
    ['HEAD', '/v2/', 200, ''],
    ['GET', `${path}/manifests/none`, 404, 'MANIFEST_UNKNOWN'],
    ['GET', `${path}/manifests/${absent}`, 404, 'MANIFEST_UNKNOWN'],
    ['GET', `${path}/manifests/sha256:wrong`, 400, 'DIGEST_INVALID'],
    ['GET', `${path}/blobs/${absent}`, 404, 'BLOB_UNKNOWN'],
    ['GET', `${path}/blobs/${image.root.digest}`, 404, 'BLOB_UNKNOWN'],
    ['GET', '/v2/no/such/manifests/x', 404, 'NAME_UNKNOWN'],
    ['GET', `/v2/other/blobs/${config.digest}`, 404, 'NAME_UNKNOWN'],
    ['PUT', `${path}/manifests/x`, 405, 'UNSUPPORTED'],
    ['POST', `${path}/blobs/uploads/`, 405, 'UNSUPPORTED'],
    ['GET', '/elsewhere', 404, 'not found'],
  ]
  for (const [method, target, status, text] of table) {
    const got = await get(registry.url + target, {}, method)
    assert.deepEqual([target, got.status], [target, status])
    assert.ok(got.bytes.toString().includes(text), got.bytes.toString())
  }
  const again = await get(`${registry.url}${path}/manifests/1.0`, { 'If-None-Match': `"${image.root.digest}"` })
  assert.equal(again.status, 304)
})

test('ranges: 206 for what is there, 416 for what is not, 200 for what is no single range', async () => {
  const blob = seededBlob('range', 1000)
  const bytes = Buffer.from(bytesOf(blob.content))
  await using registry = await startScriptedRegistry()
  registry.repository('r').add(blob)
  const url = `${registry.url}/v2/r/blobs/${blob.digest}`
  const table: readonly (readonly [string, number, string | null, number, number])[] = [
    ['bytes=0-0', 206, 'bytes 0-0/1000', 0, 1],
    ['bytes=10-', 206, 'bytes 10-999/1000', 10, 1000],
    ['bytes=-5', 206, 'bytes 995-999/1000', 995, 1000],
    ['bytes=990-5000', 206, 'bytes 990-999/1000', 990, 1000],
    ['bytes=0-1,5-6', 200, null, 0, 1000],
    ['items=0-1', 200, null, 0, 1000],
  ]
  for (const [range, status, contentRange, from, to] of table) {
    const got = await get(url, { Range: range })
    assert.deepEqual([range, got.status, got.headers.get('content-range')], [range, status, contentRange])
    assert.deepEqual(got.bytes, bytes.subarray(from, to))
  }
  const beyond = await get(url, { Range: 'bytes=1000-' })
  assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, 'bytes */1000'])
  assert.equal((await get(url, { Range: 'bytes=1-2', 'If-Range': '"other"' })).status, 200)
  assert.equal((await get(url, { Range: 'bytes=1-2', 'If-Range': `"${blob.digest}"` })).status, 206)
})

test('a generated blob of 32 MiB passes through unharmed', async () => {
  const blob = seededBlob('big', 32 * 1024 * 1024)
  await using registry = await startScriptedRegistry()
  registry.repository('r').add(blob)
  const got = await get(`${registry.url}/v2/r/blobs/${blob.digest}`)
  assert.equal(contentDigest(contentOf(got.bytes)), blob.digest)
})

test('traffic accounts see every byte, overlaps included', async () => {
  const blob = seededBlob('account', 1000)
  await using registry = await startScriptedRegistry()
  registry.repository('r').add(blob)
  const url = `${registry.url}/v2/r/blobs/${blob.digest}`
  for (const range of ['bytes=0-499', 'bytes=500-']) await get(url, { Range: range })
  assert.equal(registry.trafficOf(blob.digest) / blob.content.size, 1)
  assert.equal(registry.overlap(blob.digest), 0)
  await get(url, { Range: 'bytes=450-549' })
  await get(url, {}, 'HEAD')
  assert.equal(registry.overlap(blob.digest), 100)
  assert.deepEqual(registry.segments(blob.digest), [
    { from: 0, to: 500 },
    { from: 450, to: 550 },
    { from: 500, to: 1000 },
  ])
  assert.equal(registry.count({ method: 'GET', kind: 'blob', repository: 'r', reference: blob.digest }), 3)
})

test('tags and repositories come in pages with a Link', async () => {
  await using registry = await startScriptedRegistry({ maxPage: 3 })
  const repository = registry.repository('library/tiny')
  for (const tag of ['b', 'a', 'C', 'd', 'e']) repository.tag(tag, image.root)
  const read = async (target: string): Promise<readonly [string, string | null]> => {
    const got = await get(registry.url + target)
    return [got.bytes.toString(), got.headers.get('link')]
  }
  assert.deepEqual(await read(`${path}/tags/list?n=2`), [
    '{"name":"library/tiny","tags":["C","a"]}',
    `<${path}/tags/list?last=a&n=2>; rel="next"`,
  ])
  assert.deepEqual(await read(`${path}/tags/list?last=a&n=3`), ['{"name":"library/tiny","tags":["b","d","e"]}', null])
  assert.match((await read(`${path}/tags/list`))[1] ?? '', /last=b&n=3/)
  assert.deepEqual(await read(`${path}/tags/list?n=0`), ['{"name":"library/tiny","tags":[]}', null])
  assert.match((await read(`${path}/tags/list?n=x`))[0], /PAGINATION_NUMBER_INVALID/)
  assert.deepEqual(await read('/v2/_catalog'), ['{"repositories":["library/tiny"]}', null])
})

test('referrers are listed, filtered and paged; or the API is missing', async () => {
  const signed = withReferrers(image, [
    tinyArtifact({ seed: 'one', subject: image.root, artifactType: 'application/one' }),
    tinyArtifact({ seed: 'two', subject: image.root, artifactType: 'application/two', annotations: { by: 'x' } }),
  ])
  const target = `${path}/referrers/${image.root.digest}`
  await using registry = await startScriptedRegistry({ referrers: { pageSize: 1 } })
  registry.load(signed)
  const first = await get(registry.url + target)
  assert.equal(first.headers.get('content-type'), OCI_INDEX)
  assert.match(first.bytes.toString(), /"artifactType":"application\/one"/)
  assert.equal(first.headers.get('link'), `<${target}?page=1>; rel="next"`)
  const second = await get(`${registry.url}${target}?page=1`)
  assert.match(second.bytes.toString(), /"artifactType":"application\/two","annotations":{"by":"x"}/)
  assert.equal(second.headers.get('link'), null)
  const filtered = await get(`${registry.url}${target}?artifactType=application/two`)
  assert.equal(filtered.headers.get('oci-filters-applied'), 'artifactType')
  assert.doesNotMatch(filtered.bytes.toString(), /application\/one/)
  const none = await get(`${registry.url}${path}/referrers/sha256:${'0'.repeat(64)}`)
  assert.match(none.bytes.toString(), /"manifests":\[\]/)
  await using old = await startScriptedRegistry({ referrers: 'off' })
  assert.equal((await get(old.load(signed).url + target)).status, 404)
})

test('Basic: challenge, right, wrong, and not for this repository', async () => {
  const accounts = [{ name: 'ada', password: 'secret', pulls: ['library/*'] }]
  await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts } })
  registry.load(image, tinyImage({ seed: 'other', repository: 'acme/app' }))
  registry.load(tinyImage({ seed: 'open', repository: 'open/app' })).repository('open/app').isPrivate = false
  const as = (pair: string): Record<string, string> => ({
    Authorization: `Basic ${Buffer.from(pair).toString('base64')}`,
  })
  const anonymous = await get(`${registry.url}/v2/`)
  assert.deepEqual(
    [anonymous.status, anonymous.headers.get('www-authenticate')],
    [401, 'Basic realm="Scripted registry"'],
  )
  assert.equal((await get(`${registry.url}/v2/`, as('ada:secret'))).status, 200)
  assert.equal((await get(`${registry.url}${path}/manifests/1.0`, as('ada:wrong'))).status, 401)
  assert.equal((await get(`${registry.url}${path}/manifests/1.0`, as('ada:secret'))).status, 200)
  assert.equal((await get(`${registry.url}/v2/acme/app/manifests/latest`, as('ada:secret'))).status, 403)
  assert.equal((await get(`${registry.url}/v2/open/app/manifests/latest`)).status, 200)
})

test('challenges: on the ping, on content, on both, or as the test words them', async () => {
  const auth = { scheme: 'bearer', realm: 'https://auth.invalid/token', service: 's', tokens: new Map() } as const
  const ask = async (options: object): Promise<readonly unknown[]> => {
    await using registry = await startScriptedRegistry({ auth, ...options })
    const answers = [await get(`${registry.url}/v2/`), await get(`${registry.url}/v2/a/manifests/x`)]
    return answers.map(({ status, headers }) => [status, headers.get('www-authenticate')])
  }
  const bare = 'Bearer realm="https://auth.invalid/token",service="s"'
  const scoped = `${bare},scope="repository:a:pull"`
  assert.deepEqual(await ask({}), [
    [401, bare],
    [401, scoped],
  ])
  assert.deepEqual(await ask({ challengeOn: 'content' }), [
    [200, null],
    [401, scoped],
  ])
  assert.deepEqual(await ask({ challengeOn: 'ping' }), [
    [401, bare],
    [401, null],
  ])
  assert.deepEqual(
    await ask({ challenges: () => ['Basic', 'bearer REALM=x'] }),
    Array(2).fill([401, 'Basic, bearer REALM=x']),
  )
})

test('a strict registry hides what the client does not accept', async () => {
  const index = tinyIndex({ seed: 'strict', repository: 'library/tiny' })
  await using registry = await startScriptedRegistry({
    isStrictOnAccept: true,
    headers: () => ({ 'Set-Cookie': 'a=b' }),
  })
  const url = `${registry.load(index).url}${path}/manifests/latest`
  assert.equal((await get(url, { Accept: OCI_MANIFEST })).status, 404)
  const got = await get(url, { Accept: `${OCI_MANIFEST}, ${OCI_INDEX};q=0.5` })
  assert.deepEqual([got.status, got.headers.get('set-cookie')], [200, 'a=b'])
})

test('a CDN serves signed blobs: once, for a time, without Authorization', async () => {
  const clock = new ManualClock()
  const cdn = { isSingleUse: true, lifetimeMs: 1000, refusesAuthorization: true }
  await using registry = await startScriptedRegistry({ cdn, clock })
  registry.load(image)
  const locate = async (): Promise<string> => {
    const got = await get(`${registry.url}${path}/blobs/${config.digest}`)
    assert.equal(got.status, 307)
    return got.headers.get('location') ?? ''
  }
  const location = await locate()
  assert.notEqual(new URL(location).port, new URL(registry.url).port)
  assert.equal((await get(location, { Authorization: 'Bearer x' })).status, 400)
  assert.equal((await get(location, {}, 'HEAD')).status, 200)
  const ranged = await get(location, { Range: 'bytes=0-9' })
  assert.deepEqual(ranged.bytes, Buffer.from(config.content.slice(0, 10)))
  assert.equal((await get(location)).status, 403)
  const late = await locate()
  clock.advance(1000)
  assert.equal((await get(late)).status, 403)
  assert.equal((await get(`${late.slice(0, -1)}`)).status, 403)
  const revoked = await locate()
  registry.cdn?.expireAll()
  assert.equal((await get(revoked)).status, 403)
  assert.equal(registry.cdn?.count({ where: ({ headers }) => headers['authorization'] !== undefined }), 1)
  assert.equal(registry.trafficOf(config.digest), 10)
  registry.cdn?.script({ kind: 'cdn' }, fault.status(500))
  assert.equal((await get(await locate())).status, 500)
})

test('content can move and vanish between two pulls', async () => {
  const newer = tinyImage({ seed: 'newer' })
  await using registry = await startScriptedRegistry()
  const repository = registry.load(image).repository('library/tiny')
  const digestOf = async (): Promise<string | null> =>
    (await get(`${registry.url}${path}/manifests/1.0`, {}, 'HEAD')).headers.get('docker-content-digest')
  assert.equal(await digestOf(), image.root.digest)
  repository.tag('1.0', newer.root)
  assert.equal(await digestOf(), newer.root.digest)
  repository.tags.delete('1.0')
  assert.equal(await digestOf(), null)
  repository.blobs.delete(config.digest)
  assert.equal((await get(`${registry.url}${path}/blobs/${config.digest}`)).status, 404)
  registry.deleteRepository('library/tiny')
  assert.match((await get(`${registry.url}${path}/tags/list`)).bytes.toString(), /NAME_UNKNOWN/)
})
