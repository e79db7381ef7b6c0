import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fault, type Step } from '../../support/fault-script.ts'
import { startScriptedRegistry, type RegistryOptions, type ScriptedRegistry } from '../../support/scripted-registry.ts'
import { startTokenServer } from '../../support/scripted-token-server.ts'
import { bytesOf, seededBlob, tinyImage } from '../../support/tiny-image.ts'
import { bytesOfStream, openOn, referenceOf, rejectsWith, repositoryOf, signal, type Opened } from './opened.ts'

const blob = seededBlob('blobs', 300_000)
const bytes = Buffer.from(bytesOf(blob.content))
const app = repositoryOf('acme/app')

async function startWorld(options: RegistryOptions = {}): Promise<Opened & { registry: ScriptedRegistry }> {
  const registry = await startScriptedRegistry(options)
  registry.repository('acme/app').add(blob)
  const opened = openOn(registry.url)
  const dispose = async (): Promise<void> => {
    await opened.upstream.close()
    await registry.close()
  }
  return { ...opened, registry, [Symbol.asyncDispose]: dispose }
}

const whole = { from: 0, to: undefined }

describe('blobs', () => {
  it('whole, and every kind of range', async () => {
    await using world = await startWorld()
    const ranges: readonly (readonly [number, number | undefined])[] = [
      [0, undefined],
      [0, 1],
      [0, 300_000],
      [1, undefined],
      [1_000, 200_000],
      [299_999, 300_000],
    ]
    for (const [from, to] of ranges) {
      const stream = await world.upstream.openBlob(app, blob.digest, { range: { from, to }, session: {}, signal })
      assert.deepEqual([stream.from, stream.to, stream.size], [from, to ?? 300_000, 300_000])
      assert.ok((await bytesOfStream(stream)).equals(bytes.subarray(from, to)))
    }
    assert.equal(world.registry.requests[0]?.range, undefined)
    assert.equal(world.registry.requests[3]?.range, 'bytes=1-')
    assert.equal(world.registry.requests[4]?.range, 'bytes=1000-199999')
  })

  it('a registry that ignores the range gives the whole from 0', async () => {
    await using world = await startWorld()
    world.registry.script({}, fault.ignoreRange())
    const stream = await world.upstream.openBlob(app, blob.digest, { range: { from: 5, to: 10 }, session: {}, signal })
    assert.deepEqual([stream.from, stream.to, stream.size], [0, 300_000, 300_000])
    assert.equal((await bytesOfStream(stream)).length, 300_000)
  })

  it('a chunked body announces no end and is whole when it ends', async () => {
    await using world = await startWorld()
    world.registry.script({}, fault.chunked())
    const stream = await world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })
    assert.deepEqual([stream.to, stream.size], [undefined, undefined])
    assert.ok((await bytesOfStream(stream)).equals(bytes))
  })

  const wrong: readonly (readonly [name: string, step: Step])[] = [
    ['another start', fault.contentRange('bytes 6-9/300000')],
    ['more than asked', fault.contentRange('bytes 5-10/300000')],
    ['a length that disagrees', fault.contentRange('bytes 5-7/300000')],
    ['no Content-Range', fault.contentRange(undefined)],
    ['a malformed Content-Range', fault.contentRange('bytes=5-9/300000')],
    ['an unsatisfied Content-Range', fault.contentRange('bytes */300000')],
    ['an end before the start', fault.contentRange('bytes 5-4/300000')],
    ['an end beyond the total', fault.contentRange('bytes 5-9/8')],
    ['several parts', fault.header('Content-Type', 'multipart/byteranges; boundary=x')],
    ['an encoding', fault.header('Content-Encoding', 'gzip')],
    ['416', fault.status(416)],
  ]
  for (const [name, step] of wrong) {
    it(`a range answered with ${name} is refused`, async () => {
      await using world = await startWorld()
      world.registry.script({}, step)
      const range = { from: 5, to: 10 }
      await rejectsWith('UPSTREAM_INVALID', world.upstream.openBlob(app, blob.digest, { range, session: {}, signal }))
    })
  }

  it('206 to a request for the whole is refused, and so is another total later in the same fill', async () => {
    await using world = await startWorld()
    world.registry.script({}, fault.status(206, { 'Content-Range': 'bytes 0-1/2' }, 'ab'))
    await rejectsWith(
      'UPSTREAM_INVALID',
      world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal }),
    )
    const session = {}
    ;(await world.upstream.openBlob(app, blob.digest, { range: { from: 0, to: 5 }, session, signal })).cancel()
    world.registry.script({}, fault.contentRange('bytes 5-9/300001'))
    await rejectsWith(
      'UPSTREAM_INVALID',
      world.upstream.openBlob(app, blob.digest, { range: { from: 5, to: 10 }, session, signal }),
      /300000/,
    )
  })

  const broken: readonly (readonly [name: string, step: Step, code: 'UPSTREAM_UNREACHABLE' | 'UPSTREAM_INVALID'])[] = [
    ['a reset', fault.reset(100_000), 'UPSTREAM_UNREACHABLE'],
    ['a clean end too early', fault.cut(100_000), 'UPSTREAM_UNREACHABLE'],
    ['a length that promises more', fault.lieLength(10), 'UPSTREAM_UNREACHABLE'],
    ['a gap', fault.stall(100_000), 'UPSTREAM_UNREACHABLE'],
    ['a cut chunked body', [fault.chunked(), fault.cut(100_000)], 'UPSTREAM_UNREACHABLE'],
  ]
  for (const [name, step, code] of broken) {
    it(`${name} in the body rejects, saying how far it came`, async () => {
      await using world = await startWorld()
      world.registry.script({}, step)
      const stream = await world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })
      await rejectsWith(code, bytesOfStream(stream), /after \d+ of /)
    })
  }

  it('more bytes than the range announced are never given', async () => {
    await using world = await startWorld()
    world.registry.script({}, [fault.contentRange('bytes 0-9/300000'), fault.resize(20), fault.chunked()])
    const stream = await world.upstream.openBlob(app, blob.digest, { range: { from: 0, to: 10 }, session: {}, signal })
    await rejectsWith('UPSTREAM_INVALID', bytesOfStream(stream), /more bytes/)
  })

  it('a slow reader is not taken for a slow upstream', async () => {
    await using world = await startWorld()
    const stream = await world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })
    let length = 0
    for await (const chunk of stream.body) {
      if (length === 0) await new Promise((resolve) => setTimeout(resolve, 400))
      length += chunk.length
    }
    assert.equal(length, 300_000)
  })

  it('leaving early, cancelling and aborting end the connection', async () => {
    await using world = await startWorld()
    world.registry.scriptAlways({}, fault.rate(500_000))
    const open = (given = signal): ReturnType<typeof world.upstream.openBlob> =>
      world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal: given })
    for await (const chunk of (await open()).body) {
      assert.ok(chunk.length > 0)
      break
    }
    const cancelled = await open()
    cancelled.cancel()
    cancelled.cancel()
    const abort = new AbortController()
    const reading = bytesOfStream(await open(abort.signal))
    abort.abort(new Error('enough'))
    await assert.rejects(reading, { message: 'enough' })
    const ended = await world.registry.ended({ kind: 'blob' }, 3)
    assert.ok(ended.every(({ aborted, bytesSent }) => aborted && bytesSent < 300_000))
    assert.equal(world.events.filter(({ type }) => type === 'request.done').length, 3)
  })

  it('headBlob tells the length, by GET of one byte where HEAD is refused', async () => {
    await using world = await startWorld()
    assert.deepEqual(await world.upstream.headBlob(app, blob.digest, { signal }), { size: 300_000 })
    world.registry.script({ method: 'HEAD' }, fault.status(405), fault.status(403))
    assert.deepEqual(await world.upstream.headBlob(app, blob.digest, { signal }), { size: 300_000 })
    assert.deepEqual(await world.upstream.headBlob(app, blob.digest, { signal }), { size: 300_000 })
    assert.equal(world.registry.count({ method: 'GET', where: ({ range }) => range === 'bytes=0-0' }), 2)
    const missing = seededBlob('missing', 3).digest
    await rejectsWith('BLOB_UNKNOWN', world.upstream.headBlob(app, missing, { signal }))
    await rejectsWith('BLOB_UNKNOWN', world.upstream.openBlob(app, missing, { range: whole, session: {}, signal }))
  })
})

describe('blobs behind a redirect', () => {
  it('the CDN sees the range and none of our credentials, in no header at all', async () => {
    await using tokens = await startTokenServer({ accounts: [{ name: 'u', password: 'pw-canary', pulls: ['**'] }] })
    await using registry = await startScriptedRegistry({ auth: tokens.auth(), cdn: { refusesAuthorization: true } })
    registry.repository('acme/app').add(blob)
    const source = { read: () => Promise.resolve({ username: 'u', password: 'pw-canary' }) }
    await using opened = openOn(registry.url, { realms: [new URL(tokens.url).host], credentials: [{ source }] })
    const stream = await opened.upstream.openBlob(app, blob.digest, {
      range: { from: 7, to: 100 },
      session: {},
      signal,
    })
    assert.ok((await bytesOfStream(stream)).equals(bytes.subarray(7, 100)))
    const [request] = registry.cdn?.requests ?? []
    const { host, connection, ...rest } = request?.headers ?? {}
    assert.deepEqual([host, connection], [registry.cdn?.host, 'keep-alive'])
    assert.deepEqual(rest, {
      accept: '*/*',
      'accept-encoding': 'identity',
      'user-agent': 'entrepot/1.2.3',
      range: 'bytes=7-99',
    })
    assert.ok(registry.requests.some(({ headers }) => headers['authorization']?.startsWith('Bearer ')))
    assert.ok(!JSON.stringify(opened.events).includes('canary'))
  })

  it('one signed URL serves a fill, another fill gets its own', async () => {
    await using world = await startWorld({ cdn: {} })
    const session = {}
    for (const from of [0, 1_000, 2_000]) {
      const range = { from, to: from + 1_000 }
      const part = await bytesOfStream(await world.upstream.openBlob(app, blob.digest, { range, session, signal }))
      assert.ok(part.equals(bytes.subarray(from, from + 1_000)))
    }
    assert.equal(world.registry.count({ kind: 'blob' }), 1)
    ;(await world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })).cancel()
    assert.equal(world.registry.count({ kind: 'blob' }), 2)
    assert.ok(!JSON.stringify(session).includes('Signature'))
  })

  it('an expired, used or failing signed URL is renewed at the registry', async () => {
    await using world = await startWorld({ cdn: { isSingleUse: true } })
    const session = {}
    const read = async (from: number): Promise<void> => {
      const range = { from, to: from + 10 }
      const part = await bytesOfStream(await world.upstream.openBlob(app, blob.digest, { range, session, signal }))
      assert.ok(part.equals(bytes.subarray(from, from + 10)))
    }
    await read(0)
    await read(10)
    world.registry.cdn?.expireAll()
    await read(20)
    world.registry.cdn?.script({}, fault.reset())
    await read(30)
    world.registry.cdn?.script({}, fault.status(503))
    await read(40)
    assert.equal(world.registry.count({ kind: 'blob' }), 5)
  })

  it('what a CDN has lost is no answer of the registry', async () => {
    await using world = await startWorld({ cdn: {} })
    world.registry.cdn?.scriptAlways({}, fault.status(404))
    const call = { range: { from: 0, to: undefined }, session: {}, signal }
    await rejectsWith('UPSTREAM_ERROR', world.upstream.openBlob(app, blob.digest, call), /404 from .*redirect/)
  })

  it('a refusal by the CDN is never told as a denial or an absence', async () => {
    await using world = await startWorld({ cdn: {} })
    world.registry.cdn?.script(
      {},
      fault.status(403, {}, '<Error/>'),
      fault.status(401),
      fault.status(404, {}, '<Error/>'),
    )
    for (let calls = 0; calls < 3; calls++) {
      await rejectsWith(
        'UPSTREAM_ERROR',
        world.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal }),
      )
    }
  })

  it('headBlob settles a redirect to storage by GET', async () => {
    await using world = await startWorld({ cdn: {} })
    assert.deepEqual(await world.upstream.headBlob(app, blob.digest, { signal }), { size: 300_000 })
    assert.equal(world.registry.cdn?.count({ method: 'HEAD' }), 0)
    assert.equal(world.registry.cdn?.requests[0]?.range, 'bytes=0-0')
  })

  it('a loop, a foreign scheme and a private target are refused; nothing is dialled', async () => {
    await using world = await startWorld()
    await using bystander = await startScriptedRegistry()
    await using guarded = openOn(world.registry.url, { allowPrivate: [] })
    const open = (): Promise<unknown> =>
      guarded.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })
    world.registry.scriptAlways({}, fault.redirect('/v2/acme/app/blobs/loop'))
    await rejectsWith('UPSTREAM_INVALID', open(), /redirects/)
    assert.equal(world.registry.count(), 6)
    world.registry.clearScripts()
    const { port } = bystander
    const targets = [
      `127.0.0.1:${port}`,
      `localhost:${port}`,
      `[::ffff:127.0.0.1]:${port}`,
      `2130706433:${port}`,
      `0.0.0.0:${port}`,
      `0x7f.1:${port}`,
    ]
    for (const target of targets) {
      world.registry.script({}, fault.redirect(`http://${target}/blob`))
      await rejectsWith('ADDRESS_REFUSED', open())
    }
    for (const location of ['file:///etc/passwd', 'ftp://127.0.0.1/x', `http://user:pw@127.0.0.1:${port}/`]) {
      world.registry.script({}, fault.redirect(location))
      await rejectsWith('UPSTREAM_INVALID', open())
    }
    assert.equal(bystander.acceptedConnections, 0)
  })

  it('a name that turns private between two answers is never dialled', async () => {
    await using world = await startWorld()
    await using bystander = await startScriptedRegistry()
    let asked = 0
    const answers = [['10.255.255.1'], ['127.0.0.1'], ['93.184.216.34', '127.0.0.1']]
    await using guarded = openOn(world.registry.url, {
      allowPrivate: [],
      lookup: (_name, _options, callback) => {
        const addresses = answers[asked++ % answers.length] ?? []
        callback(
          null,
          addresses.map((address) => ({ address, family: 4 })),
        )
      },
    })
    world.registry.scriptAlways({}, fault.redirect(`http://cdn.example:${bystander.port}/blob`))
    for (let calls = 0; calls < 3; calls++) {
      await rejectsWith(
        'ADDRESS_REFUSED',
        guarded.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal }),
      )
    }
    assert.equal(asked, 3)
    assert.equal(bystander.acceptedConnections, 0)
  })

  it('a manifest that is redirected elsewhere is followed without credentials, under its own name', async () => {
    await using regional = await startScriptedRegistry()
    await using front = await startScriptedRegistry()
    const image = tinyImage({ seed: 'pause', repository: 'images/pause', tag: '3.9' })
    regional.load(image)
    front.scriptAlways({ kind: 'manifest' }, fault.redirect(`${regional.url}/v2/images/pause/manifests/3.9?rid=1`))
    await using opened = openOn(front.url)
    const head = await opened.upstream.headManifest(repositoryOf('pause'), referenceOf('3.9'), { signal })
    assert.equal(head.digest, image.root.digest)
    assert.equal(regional.requests[0]?.query.get('rid'), '1')
  })
})
