import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { digestOf } from '../../../src/oci/digest.ts'
import { MANIFEST_ACCEPT, OCI_MANIFEST } from '../../../src/oci/media-types.ts'
import { fault } from '../../support/fault-script.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { tinyArtifact, tinyImage, withReferrers } from '../../support/tiny-image.ts'
import { openOn, referenceOf, rejectsWith, repositoryOf, signal } from './opened.ts'

const image = tinyImage({ seed: 'manifests', repository: 'acme/app', tag: '1.2' })
const app = repositoryOf('acme/app')
const tag = referenceOf('1.2')

describe('manifests', () => {
  it('HEAD and GET by tag and by digest tell digest, type and length', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    for (const reference of [tag, image.root.digest]) {
      const head = await opened.upstream.headManifest(app, reference, { signal })
      assert.deepEqual(head, { digest: image.root.digest, mediaType: OCI_MANIFEST, size: image.root.bytes.length })
      const fetched = await opened.upstream.fetchManifest(app, reference, { signal })
      assert.equal(fetched.claimedDigest, image.root.digest)
      assert.deepEqual(Buffer.from(fetched.bytes), Buffer.from(image.root.bytes))
    }
  })

  it('exactly our own headers are sent: no ns, no cookie, nothing of a client', async () => {
    await using registry = await startScriptedRegistry({ headers: () => ({ 'Set-Cookie': 'session=canary' }) })
    registry.load(image)
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 2; calls++) await opened.upstream.fetchManifest(app, tag, { signal })
    for (const { headers, url } of registry.requests) {
      const { host, connection, ...rest } = headers
      assert.equal(host, registry.host)
      assert.equal(connection, 'keep-alive')
      assert.deepEqual(rest, { accept: MANIFEST_ACCEPT, 'accept-encoding': 'identity', 'user-agent': 'entrepot/1.2.3' })
      assert.equal(url, '/v2/acme/app/manifests/1.2')
    }
  })

  it('a HEAD without a digest, length or meaningful type leaves them undefined', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.scriptAlways(
      { method: 'HEAD' },
      fault.noDigest(),
      fault.header('Content-Type', 'application/octet-stream'),
      fault.header('Content-Length', '0'),
    )
    await using opened = openOn(registry.url)
    assert.deepEqual(await opened.upstream.headManifest(app, tag, { signal }), {
      digest: undefined,
      mediaType: undefined,
      size: undefined,
    })
  })

  it('HEAD refused with 405 becomes GET, and is not tried again', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.scriptAlways({ method: 'HEAD' }, fault.status(405))
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 3; calls++) {
      const head = await opened.upstream.headManifest(app, tag, { signal })
      assert.deepEqual(head, { digest: image.root.digest, mediaType: OCI_MANIFEST, size: image.root.bytes.length })
    }
    assert.equal(registry.count({ method: 'HEAD' }), 1)
  })

  it('HEAD refused with 403 becomes GET each time', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.scriptAlways({ method: 'HEAD' }, fault.status(403))
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 2; calls++) await opened.upstream.headManifest(app, tag, { signal })
    assert.equal(registry.count({ method: 'HEAD' }), 2)
  })

  it('a 404 in JSON, or empty, is an answer; one in HTML or plain text is none', async () => {
    await using registry = await startScriptedRegistry({ headers: () => ({ 'Docker-Distribution-Api-Version': [] }) })
    registry.load(image)
    await using opened = openOn(registry.url)
    const missing = referenceOf('missing')
    await rejectsWith(
      'MANIFEST_UNKNOWN',
      opened.upstream.fetchManifest(app, missing, { signal }),
      /GET scripted\/acme\/app:missing: 404/,
    )
    await rejectsWith('MANIFEST_UNKNOWN', opened.upstream.headManifest(app, missing, { signal }))
    await rejectsWith('NAME_UNKNOWN', opened.upstream.fetchManifest(repositoryOf('no/such'), tag, { signal }))
    registry.scriptAlways({ kind: 'manifest', where: () => true }, fault.status(404))
    await rejectsWith('MANIFEST_UNKNOWN', opened.upstream.fetchManifest(app, tag, { signal }))
    registry.clearScripts()
    registry.scriptAlways(
      { kind: 'manifest' },
      fault.status(404, { 'Content-Type': 'text/plain' }, '404 page not found\n'),
    )
    await rejectsWith('UPSTREAM_ERROR', opened.upstream.fetchManifest(app, tag, { signal }))
    await rejectsWith('UPSTREAM_ERROR', opened.upstream.headManifest(app, tag, { signal }))
    registry.clearScripts()
    registry.scriptAlways({ kind: 'manifest' }, fault.html('<h1>Not found</h1>', 404))
    await rejectsWith('UPSTREAM_ERROR', opened.upstream.headManifest(app, tag, { signal }))
  })

  it("a 403 counts as a denial only in the registry's own words", async () => {
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url)
    registry.script(
      { method: 'GET' },
      fault.status(403, {}, '{"errors":[{"code":"DENIED"}]}'),
      fault.html('<h1>Blocked</h1>', 403),
      fault.status(403),
    )
    await rejectsWith('UPSTREAM_DENIED', opened.upstream.fetchManifest(app, tag, { signal }))
    await rejectsWith('UPSTREAM_ERROR', opened.upstream.fetchManifest(app, tag, { signal }))
    await rejectsWith('UPSTREAM_ERROR', opened.upstream.fetchManifest(app, tag, { signal }))
  })

  it('a login page with 200 is no manifest', async () => {
    await using registry = await startScriptedRegistry()
    registry.scriptAlways({}, fault.html())
    await using opened = openOn(registry.url)
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }), /HTML/)
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.headManifest(app, tag, { signal }), /HTML/)
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.listTags(app, '', { signal }), /HTML/)
  })

  it('one gzip layer is decoded under the cap; a bomb, garbage and other encodings are refused', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    registry.script({ method: 'GET' }, fault.gzip())
    const { bytes } = await opened.upstream.fetchManifest(app, tag, { signal })
    assert.equal(digestOf(bytes), image.root.digest)
    const encoded = (encoding: string, body: Uint8Array): ReturnType<typeof fault.status> =>
      fault.status(200, { 'Content-Type': OCI_MANIFEST, 'Content-Encoding': encoding }, body)
    registry.script(
      {},
      encoded('gzip', gzipSync(Buffer.alloc(8 * 1024 * 1024))),
      encoded('gzip', Buffer.from('no gzip')),
      encoded('br', Buffer.from('x')),
    )
    for (let calls = 0; calls < 3; calls++) {
      await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }))
    }
  })

  it('a body over the cap is refused, announced or not', async () => {
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url, { maxManifestBytes: 4_096 })
    registry.script({}, fault.hugeBody(100_000), [fault.hugeBody(100_000), fault.chunked()])
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }), /longer than 4096/)
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }), /longer than 4096/)
  })

  it('100 and 103 before the reply are passed over', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.script({}, fault.interim(103, { Link: '</x>' }), fault.interim(100))
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 2; calls++) await opened.upstream.fetchManifest(app, tag, { signal })
  })

  it('garbage, over-long heads and a second reply nobody asked for do no harm', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    registry.script({}, fault.garbage(), fault.status(200, { 'X-Long': 'a'.repeat(70_000) }))
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }))
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.fetchManifest(app, tag, { signal }))
    registry.script({}, fault.unsolicited())
    for (let calls = 0; calls < 3; calls++) {
      const { bytes } = await opened.upstream.fetchManifest(app, tag, { signal })
      assert.equal(digestOf(bytes), image.root.digest)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })
})

describe('lists', () => {
  it('tags page by page, the query passed on as it is', async () => {
    await using registry = await startScriptedRegistry({ maxPage: 2 })
    for (const name of ['a', 'b', 'c']) registry.repository('acme/app').tag(name, image.root)
    await using opened = openOn(registry.url)
    const first = await opened.upstream.listTags(app, 'n=2', { signal })
    assert.deepEqual(first.tags, ['a', 'b'])
    assert.ok(first.next !== undefined)
    assert.deepEqual(await opened.upstream.listTags(app, first.next, { signal }), { tags: ['c'], next: undefined })
    assert.equal(registry.requests[0]?.headers['accept'], 'application/json')
  })

  it('null is no tags; other bodies, and a Link elsewhere, are refused', async () => {
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url)
    const bodies = ['{"name":"a","tags":null}', '{"tags":{}}', '[]', 'x', '{"tags":["a",5]}']
    registry.script({}, ...bodies.map((body) => fault.status(200, { 'Content-Type': 'application/json' }, body)))
    assert.deepEqual(await opened.upstream.listTags(app, '', { signal }), { tags: [], next: undefined })
    for (let calls = 0; calls < 3; calls++)
      await rejectsWith('UPSTREAM_INVALID', opened.upstream.listTags(app, '', { signal }))
    assert.deepEqual((await opened.upstream.listTags(app, '', { signal })).tags, ['a'])
    registry.script({}, fault.status(200, { Link: '<https://evil.test/?last=a>; rel="next"' }, '{"tags":[]}'))
    await rejectsWith('UPSTREAM_INVALID', opened.upstream.listTags(app, '', { signal }), /another host/)
    await rejectsWith('NAME_UNKNOWN', opened.upstream.listTags(repositoryOf('no/such'), '', { signal }))
  })

  it('referrers come as they are; a registry without the API has none to say', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(withReferrers(image, [tinyArtifact({ seed: 'sbom', subject: image.root })]))
    await using opened = openOn(registry.url)
    const page = await opened.upstream.listReferrers(app, image.root.digest, '', { signal })
    assert.equal(JSON.parse(Buffer.from(page?.bytes ?? '').toString()).manifests.length, 1)
    registry.script({ kind: 'referrers' }, fault.status(404), fault.status(405), fault.status(501), fault.html())
    for (let calls = 0; calls < 4; calls++) {
      assert.equal(await opened.upstream.listReferrers(app, image.root.digest, '', { signal }), undefined)
    }
  })
})
