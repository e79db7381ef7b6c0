import assert from 'node:assert/strict'
import { request, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Door } from '../../../src/access/door.ts'
import { GatewayError } from '../../../src/errors.ts'
import { createRegistryApp, type RegistryAppOptions } from '../../../src/http/app.ts'
import type { RequestDone } from '../../../src/http/access-log.ts'
import type { Reply } from '../../../src/http/reply.ts'
import { Listener, listenerFor } from '../../../src/http/server.ts'
import { ReplyWriter } from '../../../src/http/writer.ts'
import type { CatalogRequest, RegistryHandlers, RegistryRequest } from '../../../src/registry/request.ts'
import { RouteTable } from '../../../src/routing/table.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const table = RouteTable.from([
  { upstream: 'docker.io', place: 'a:1:1' },
  { upstream: 'ghcr.io', place: 'b:1:1' },
  { upstream: '*.pkg.dev', place: 'c:1:1' },
])

type Seen =
  | RegistryRequest<'manifest'>
  | RegistryRequest<'blob'>
  | RegistryRequest<'tags'>
  | RegistryRequest<'referrers'>
  | CatalogRequest

interface Gateway {
  readonly port: number
  readonly seen: Seen[]
  readonly done: RequestDone[]
}

interface GatewayOptions extends Partial<Omit<RegistryAppOptions, 'handlers'>> {
  readonly reply?: (request: Seen) => Reply | Promise<Reply>
}

async function start(t: TestContext, { reply, ...options }: GatewayOptions = {}): Promise<Gateway> {
  const seen: Seen[] = []
  const done: RequestDone[] = []
  const answer = async (request: Seen): Promise<Reply> => {
    seen.push(request)
    return (await reply?.(request)) ?? text('served')
  }
  const handlers: RegistryHandlers = {
    manifest: answer,
    blob: answer,
    tags: answer,
    referrers: answer,
    catalog: answer,
  }
  const app = createRegistryApp({
    listener: { port: 1, defaultUpstream: 'docker.io' },
    routes: table,
    door: doorWith({}),
    handlers,
    writer: new ReplyWriter(),
    isTrustedProxy: () => false,
    onDone: (event) => done.push(event),
    ...options,
  })
  const listener = await Listener.open({ host: '127.0.0.1', port: 0, place: 'listen', serve: listenerFor(app) })
  t.after(() => listener.close())
  return { port: listener.port, seen, done }
}

/** A door that lets everybody in, with the rules of docker.io. */
function doorWith(rules: { deny?: string[] }): Door {
  return new Door({
    upstreams: new Map([
      ['docker.io', { ...rules, file: 'upstreams.d/docker.io.yaml' }],
      ['ghcr.io', { file: 'upstreams.d/ghcr.io.yaml' }],
      ['*.pkg.dev', { file: 'upstreams.d/pkg.dev.yaml' }],
    ]),
  })
}

function text(body: string, more: Partial<Reply> = {}): Reply {
  const bytes = Buffer.from(body)
  return { status: 200, headers: { 'content-length': String(bytes.length) }, body: bytes, ...more }
}

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

function ask(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, agent: false, ...options }, (response) => {
      let body = ''
      response.on('data', (chunk: Buffer) => (body += chunk.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
    })
    asked.on('error', reject)
    asked.end()
  })
}

test('a request reaches its handler with route, path, query and headers', async (t) => {
  const { port, seen } = await start(t)
  const reply = await ask(port, '/ghcr.io/v2/org/app/tags/list?n=5&ns=ghcr.io', {
    headers: { range: 'bytes=0-', 'if-none-match': 'x' },
  })
  assert.equal(reply.body, 'served')
  const [request] = seen
  assert.ok(request && 'path' in request)
  assert.deepEqual(request.path, { kind: 'tags', repository: 'org/app' })
  assert.equal(request.route.upstream, 'ghcr.io')
  assert.equal(request.requestPath, '/ghcr.io/v2/org/app/tags/list')
  assert.equal(request.query.get('n'), '5')
  assert.deepEqual(request.headers, { accept: undefined, range: 'bytes=0-', ifRange: undefined, ifNoneMatch: 'x' })
  assert.equal(request.requestId, reply.headers['x-request-id'])
})

test('each endpoint goes to its own handler', async (t) => {
  const { port, seen } = await start(t)
  for (const path of ['a/manifests/1', `a/blobs/${DIGEST}`, 'a/tags/list', `a/referrers/${DIGEST}`, '_catalog']) {
    assert.equal((await ask(port, `/v2/${path}`)).body, 'served')
  }
  assert.deepEqual(
    seen.map((request) => ('path' in request ? request.path.kind : 'catalog')),
    ['manifest', 'blob', 'tags', 'referrers', 'catalog'],
  )
})

test('/v2/ is answered everywhere, and without any challenge', async (t) => {
  const { port } = await start(t, { listener: { port: 1, defaultUpstream: undefined } })
  for (const path of ['/v2/', '/v2', '/docker.io/v2/', '/v2/?ns=ghcr.io']) {
    const reply = await ask(port, path, { headers: { authorization: 'Basic canary' } })
    assert.equal(reply.status, 200, path)
    assert.equal(reply.body, '{}')
    assert.equal(reply.headers['docker-distribution-api-version'], 'registry/2.0')
    assert.equal(reply.headers['content-type'], 'application/json')
    assert.equal(reply.headers['www-authenticate'], undefined)
  }
})

test('/ answers twenty bytes of our own', async (t) => {
  const { port } = await start(t)
  const reply = await ask(port, '/')
  assert.equal(reply.status, 200)
  assert.equal(reply.body.length, 20)
})

test('the catalog of an address without upstream is asked without a route', async (t) => {
  const { port, seen } = await start(t, { listener: { port: 1, defaultUpstream: undefined } })
  assert.equal((await ask(port, '/v2/_catalog')).status, 200)
  assert.equal(seen[0]?.route, undefined)
})

test('what is wrong is refused with its code, as JSON, before any handler', async (t) => {
  const { port, seen } = await start(t, { door: doorWith({ deny: ['secret/x'] }) })
  const rows: readonly (readonly [string, number, string])[] = [
    ['/v2/a/manifests/1?ns=unknown.example', 404, 'NAME_UNKNOWN'],
    ['/v2/docker.io/a/manifests/1?ns=ghcr.io', 400, 'NAME_INVALID'],
    ['/v2/unknown.example/a/manifests/1', 404, 'NAME_UNKNOWN'],
    ['/v2/A/manifests/1', 400, 'NAME_INVALID'],
    ['/v2/a%2fb/manifests/1', 400, 'NAME_INVALID'],
    ['/v2/..%2f..%2fetc/manifests/1', 400, 'NAME_INVALID'],
    ['/v2/a/../../manifests/1', 400, 'NAME_INVALID'],
    ['/v2/a/manifests/.INVALID_MANIFEST_NAME', 404, 'MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/sha256:totallywrong', 400, 'DIGEST_INVALID'],
    ['/v2/a/blobs/sha256:totallywrong', 400, 'DIGEST_INVALID'],
    ['/v2/a/nothing/1', 404, 'NAME_UNKNOWN'],
    ['/v2/secret/x/manifests/1', 403, 'DENIED'],
    ['/nothing', 404, 'NAME_UNKNOWN'],
    ['/v2/../', 400, 'NAME_INVALID'],
  ]
  for (const [path, status, code] of rows) {
    const reply = await ask(port, path)
    assert.equal(reply.status, status, path)
    assert.equal(JSON.parse(reply.body).errors[0].code, code, path)
    assert.equal(JSON.parse(reply.body).errors[0].detail.requestId, reply.headers['x-request-id'])
    const head = await ask(port, path, { method: 'HEAD' })
    assert.deepEqual(
      [head.status, head.body, head.headers['content-length']],
      [status, '', reply.headers['content-length']],
    )
  }
  assert.equal(seen.length, 0)
})

test('every write is 405 with Allow, whatever the path', async (t) => {
  const { port, seen } = await start(t)
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND']) {
    for (const path of ['/v2/a/blobs/uploads/', '/v2/a/manifests/1', '/v2/', '/', '/nothing']) {
      const reply = await ask(port, path, { method })
      assert.equal(reply.status, 405, `${method} ${path}`)
      assert.equal(reply.headers.allow, 'GET, HEAD')
      assert.equal(JSON.parse(reply.body).errors[0].code, 'UNSUPPORTED')
    }
  }
  assert.equal(seen.length, 0)
})

test('an answer says what the cache did, and OCI-Namespace where ns was used', async (t) => {
  const { port } = await start(t, { reply: () => text('x', { outcome: 'stale' }) })
  const reply = await ask(port, '/v2/a/manifests/1?ns=docker.io')
  assert.equal(reply.headers['cache-status'], 'entrepot; hit; detail=stale')
  assert.equal(reply.headers['oci-namespace'], 'docker.io')
  assert.equal((await ask(port, '/v2/a/manifests/1')).headers['oci-namespace'], undefined)
})

test('HEAD has the headers of GET', async (t) => {
  const { port } = await start(t, { newRequestId: () => 'same', reply: () => text('manifest', { outcome: 'hit' }) })
  const wanted = (headers: IncomingHttpHeaders) => ({ ...headers, date: '' })
  const reply = await ask(port, '/v2/a/manifests/1')
  const head = await ask(port, '/v2/a/manifests/1', { method: 'HEAD' })
  assert.deepEqual(wanted(head.headers), wanted(reply.headers))
  assert.equal(head.body, '')
  assert.equal(head.headers['content-length'], '8')
})

test("a handler's failure is told by its code, and an unexpected one without its text", async (t) => {
  const failures: unknown[] = [new GatewayError('UPSTREAM_UNREACHABLE', 'canary'), new TypeError('canary')]
  const { port, done } = await start(t, { reply: () => Promise.reject(failures.shift() as Error) })
  const first = await ask(port, '/v2/a/manifests/1')
  assert.deepEqual(
    [first.status, first.headers['retry-after'], first.headers['proxy-status']],
    [503, '5', 'entrepot; error=destination_unavailable'],
  )
  const second = await ask(port, '/v2/a/manifests/1')
  assert.equal(second.status, 500)
  assert.doesNotMatch(first.body + second.body, /canary/)
  while (done.length < 2) await sleep(1)
  assert.deepEqual(
    done.map(({ code }) => code),
    ['UPSTREAM_UNREACHABLE', 'INTERNAL'],
  )
})

test('a source that fails before its first byte becomes an error reply', async (t) => {
  const source = {
    size: 10,
    read: () => Promise.reject(new GatewayError('UPSTREAM_INVALID', 'wrong digest')),
    close: () => Promise.resolve(),
  }
  const body = { source, segments: [{ from: 0, to: 10 }] }
  const { port } = await start(t, {
    reply: () => ({ status: 200, headers: { 'content-length': '10', etag: '"x"' }, body }),
  })
  const reply = await ask(port, `/v2/a/blobs/${DIGEST}`)
  assert.equal(reply.status, 502)
  assert.equal(reply.headers.etag, undefined)
})

test('every request ends in one event that says what became of it', async (t) => {
  const { port, done } = await start(t, { reply: () => text('12345', { outcome: 'miss' }) })
  await ask(port, '/v2/us-docker.pkg.dev/org/app/manifests/1', {
    headers: { 'user-agent': `agent \u00e9${'x'.repeat(500)}` },
  })
  await ask(port, '/v2/A/manifests/1')
  while (done.length < 2) await sleep(1)
  const [first, second] = done
  assert.ok(first && second)
  const { requestId, ms, userAgent, ...rest } = first
  assert.match(requestId, /^[0-9a-f]{16}$/)
  assert.ok(ms > 0)
  assert.equal(userAgent?.length, 200)
  assert.deepEqual(rest, {
    method: 'GET',
    upstream: 'us-docker.pkg.dev',
    pattern: '*.pkg.dev',
    via: 'inner',
    kind: 'manifest',
    repository: 'org/app',
    reference: '1',
    status: 200,
    outcome: 'miss',
    bytes: 5,
    aborted: false,
    slow: false,
    client: '127.0.0.1',
    principal: undefined,
    code: undefined,
    error: undefined,
  })
  assert.deepEqual(
    [second.status, second.code, second.upstream, second.kind],
    [400, 'NAME_INVALID', 'docker.io', undefined],
  )
})

test("a client that leaves aborts its handler's signal, and the event says so", async (t) => {
  const waiting = Promise.withResolvers<AbortSignal>()
  const { port, done } = await start(t, {
    reply: ({ signal }) => {
      waiting.resolve(signal)
      return new Promise<Reply>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
    },
  })
  const client = connect(port, '127.0.0.1')
  client.write('GET /v2/a/manifests/1 HTTP/1.1\r\nHost: gw\r\n\r\n')
  const signal = await waiting.promise
  assert.equal(signal.aborted, false)
  client.destroy()
  while (done.length === 0) await sleep(2)
  assert.deepEqual([done[0]?.aborted, done[0]?.code], [true, undefined])
})
