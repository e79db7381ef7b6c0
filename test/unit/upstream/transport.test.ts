import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fault } from '../../support/fault-script.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { bytesOf, seededBlob, tinyImage } from '../../support/tiny-image.ts'
import { testAuthority } from '../../support/tls.ts'
import { startConnectProxy } from './connect-proxy.ts'
import { bytesOfStream, openOn, referenceOf, rejectsWith, repositoryOf, signal, type Opened } from './opened.ts'

const image = tinyImage({ seed: 'transport', repository: 'acme/app' })
const blob = seededBlob('transport', 100_000)
const app = repositoryOf('acme/app')
const whole = { from: 0, to: undefined }

function head({ upstream }: Opened): Promise<unknown> {
  return upstream.headManifest(app, referenceOf('latest'), { signal })
}

describe('TLS', () => {
  const authority = testAuthority()

  it('a private CA is trusted beside the default roots, and nothing without it', async () => {
    await using registry = await startScriptedRegistry({ tls: authority.server() })
    registry.load(image)
    await using trusting = openOn(registry.url, { ca: [authority.ca] })
    await head(trusting)
    await using wary = openOn(registry.url)
    await rejectsWith('UPSTREAM_UNREACHABLE', head(wary), /tls \(/)
  })

  it('an expired or foreign certificate, and plain text on the port, never lead to plain http', async () => {
    for (const tls of [authority.expired(), authority.wrongHost()]) {
      await using registry = await startScriptedRegistry({ tls })
      await using opened = openOn(registry.url, { ca: [authority.ca] })
      await rejectsWith('UPSTREAM_UNREACHABLE', head(opened), /tls \(/)
      assert.equal(registry.count(), 0)
      assert.equal(registry.acceptedConnections, 1)
    }
    await using plain = await startScriptedRegistry()
    await using opened = openOn(plain.url.replace('http:', 'https:'), { ca: [authority.ca] })
    await rejectsWith('UPSTREAM_UNREACHABLE', head(opened))
    assert.equal(plain.count(), 0)
  })

  it('a handshake that never ends is given up', async () => {
    await using registry = await startScriptedRegistry({ tls: authority.server() })
    registry.acceptMode = 'hold'
    await using opened = openOn(registry.url, { ca: [authority.ca], timeouts: { connectMs: 100, headersMs: 100 } })
    await rejectsWith('UPSTREAM_UNREACHABLE', head(opened), /timeout/)
  })

  it('the client certificate is shown to the endpoint and to no redirect target', async () => {
    const tls = { ...authority.server(), clientCa: authority.ca }
    await using elsewhere = await startScriptedRegistry({ tls })
    await using registry = await startScriptedRegistry({ tls })
    registry.load(image)
    registry.repository('acme/app').add(blob)
    await using opened = openOn(registry.url, { ca: [authority.ca], clientCertificate: authority.client('gateway') })
    await head(opened)
    assert.equal(registry.requests[0]?.clientName, 'gateway')
    registry.scriptAlways({ kind: 'blob' }, fault.redirect(`${elsewhere.url}/blob`))
    await rejectsWith(
      'UPSTREAM_UNREACHABLE',
      opened.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal }),
    )
    assert.equal(elsewhere.count(), 0)
    await using bare = openOn(registry.url, { ca: [authority.ca] })
    await rejectsWith('UPSTREAM_UNREACHABLE', head(bare))
  })

  it('https that redirects to http is refused', async () => {
    await using registry = await startScriptedRegistry({ tls: authority.server() })
    await using plain = await startScriptedRegistry()
    registry.scriptAlways({}, fault.redirect(`${plain.url}/x`))
    await using opened = openOn(registry.url, { ca: [authority.ca] })
    await rejectsWith('UPSTREAM_INVALID', head(opened), /https to http/)
    assert.equal(plain.acceptedConnections, 0)
  })
})

describe('names and connections', () => {
  it('a name without an address, and one that does not answer, are told apart', async () => {
    const nameless = (code: string): Parameters<typeof openOn>[1] => ({
      lookup: (_name, _options, callback) => callback(Object.assign(new Error('x'), { code }), ''),
    })
    for (const code of ['ENOTFOUND', 'EAI_AGAIN']) {
      await using opened = openOn('http://registry.invalid', nameless(code))
      await rejectsWith('UPSTREAM_UNREACHABLE', head(opened), new RegExp(`dns \\(${code}\\)`))
    }
  })

  it('the configured endpoint is dialled wherever its name leads', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(`http://registry.corp:${registry.port}`, {
      allowPrivate: [],
      lookup: (_name, _options, callback) => callback(null, [{ address: '127.0.0.1', family: 4 }]),
    })
    await head(opened)
    assert.equal(registry.requests[0]?.headers['host'], `registry.corp:${registry.port}`)
  })

  it('a host that only a pattern matched is dialled at public addresses alone, and sees no client certificate', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    const lookup: NonNullable<Parameters<typeof openOn>[1]>['lookup'] = (_name, _options, callback) =>
      callback(null, [{ address: '127.0.0.1', family: 4 }])
    for (const url of [
      registry.url,
      `http://registry.corp:${registry.port}`,
      `http://[::ffff:127.0.0.1]:${registry.port}`,
    ]) {
      await using opened = openOn(url, { isPatternHost: true, allowPrivate: [], lookup })
      await rejectsWith('ADDRESS_REFUSED', head(opened))
      const { endpoints } = await opened.upstream.probe({ signal })
      assert.equal(endpoints[0]?.auth.ok, false)
    }
    assert.equal(registry.acceptedConnections, 0)
    await using allowed = openOn(registry.url, { isPatternHost: true, allowPrivate: ['127.0.0.1'] })
    await head(allowed)
  })

  it('connections are kept and used again', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.repository('acme/app').add(blob)
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 5; calls++) {
      await head(opened)
      await bytesOfStream(await opened.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal }))
      await assert.rejects(opened.upstream.fetchManifest(app, referenceOf('missing'), { signal }))
    }
    assert.ok(registry.acceptedConnections <= 4, String(registry.acceptedConnections))
  })

  it('a body behind a HEAD spoils nothing that follows', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    const raw = `HTTP/1.1 200 OK\r\nContent-Type: ${image.root.mediaType}\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n`
    registry.script({ method: 'HEAD' }, fault.garbage(raw))
    await head(opened)
    assert.deepEqual(await head(opened), {
      digest: image.root.digest,
      mediaType: image.root.mediaType,
      size: image.root.bytes.length,
    })
  })

  it('after close calls fail and nothing stays open', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    await head(opened)
    await opened.upstream.close()
    await rejectsWith('UPSTREAM_UNREACHABLE', head(opened))
  })

  it('an aborted call rejects with the reason and says nothing about the endpoint', async () => {
    await using registry = await startScriptedRegistry()
    registry.scriptAlways({}, fault.stall())
    await using opened = openOn(registry.url)
    for (let calls = 0; calls < 6; calls++) {
      const abort = new AbortController()
      const call = opened.upstream.headManifest(app, referenceOf('latest'), { signal: abort.signal })
      await registry.arrived({}, calls + 1)
      abort.abort(new Error('enough'))
      await assert.rejects(call, { message: 'enough' })
    }
    await assert.rejects(
      opened.upstream.headManifest(app, referenceOf('latest'), { signal: AbortSignal.abort(new Error('before')) }),
      { message: 'before' },
    )
    assert.ok(!opened.events.some(({ type }) => type === 'endpoint.opened'))
  })
})

describe('egress proxy', () => {
  const authority = testAuthority()

  it("https goes by CONNECT with the proxy's own credentials, http in absolute form", async () => {
    await using proxy = await startConnectProxy()
    const withUser = proxy.url.replace('http://', 'http://user:proxy-canary@')
    const proxies = { httpProxy: withUser, httpsProxy: withUser }
    await using secure = await startScriptedRegistry({ tls: authority.server() })
    await using plain = await startScriptedRegistry()
    for (const registry of [secure, plain]) registry.load(image)
    await using one = openOn(secure.url, { ca: [authority.ca], proxy: proxies })
    await using other = openOn(plain.url, { proxy: proxies })
    await head(one)
    await head(other)
    const authorization = `Basic ${Buffer.from('user:proxy-canary').toString('base64')}`
    assert.deepEqual(proxy.asked, [
      { line: `CONNECT ${secure.host}`, authorization },
      { line: `HEAD ${plain.url}/v2/acme/app/manifests/latest`, authorization },
    ])
    for (const { headers } of [...secure.requests, ...plain.requests])
      assert.equal(headers['proxy-authorization'], undefined)
    assert.ok(!JSON.stringify([...one.events, ...other.events]).includes('canary'))
  })

  it('NO_PROXY by CIDR, name and port goes directly', async () => {
    await using proxy = await startConnectProxy()
    await using registry = await startScriptedRegistry()
    registry.load(image)
    for (const noProxy of ['127.0.0.0/8', '127.0.0.1', `127.0.0.1:${registry.port}`]) {
      await using opened = openOn(registry.url, { proxy: { httpProxy: proxy.url, noProxy } })
      await head(opened)
    }
    assert.deepEqual(proxy.asked, [])
  })

  it("a redirect to a private address is refused before the proxy hears of it; a public name is the proxy's to resolve", async () => {
    await using cdn = await startScriptedRegistry()
    cdn.script({}, fault.status(200, {}, bytesOf(blob.content)))
    await using registry = await startScriptedRegistry()
    await using proxy = await startConnectProxy({ target: { host: '127.0.0.1', port: cdn.port } })
    const noProxy = `127.0.0.1:${registry.port}`
    await using opened = openOn(registry.url, { allowPrivate: [], proxy: { httpProxy: proxy.url, noProxy } })
    const open = (): ReturnType<typeof opened.upstream.openBlob> =>
      opened.upstream.openBlob(app, blob.digest, { range: whole, session: {}, signal })
    for (const target of [
      '127.0.0.1:9',
      '10.0.0.1',
      '169.254.169.254',
      '[::1]',
      'localhost',
      'metadata.google.internal',
    ]) {
      registry.script({}, fault.redirect(`http://${target}/blob`))
      await rejectsWith('ADDRESS_REFUSED', open())
    }
    assert.equal(proxy.asked.length, 0)
    registry.script({}, fault.redirect('http://cdn.example/blob'))
    assert.equal((await bytesOfStream(await open())).length, 100_000)
    assert.deepEqual(
      proxy.asked.map(({ line }) => line),
      ['GET http://cdn.example/blob'],
    )
  })

  it('a proxy that refuses, or is not there, is a failure of the connection', async () => {
    await using proxy = await startConnectProxy({ refusal: 403 })
    await using opened = openOn('https://registry.example', { proxy: { httpsProxy: proxy.url } })
    await rejectsWith('UPSTREAM_UNREACHABLE', head(opened), /proxy \(403 from the proxy\)/)
    await using gone = openOn('https://registry.example', { proxy: { httpsProxy: 'http://127.0.0.1:1' } })
    await rejectsWith('UPSTREAM_UNREACHABLE', head(gone), /connect|proxy/)
  })
})
