import assert from 'node:assert/strict'
import * as net from 'node:net'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { fault, type Step } from '../../support/fault-script.ts'
import { until } from '../../support/gateway-pair.ts'
import { startScriptedRegistry, type ScriptedRegistry } from '../../support/scripted-registry.ts'
import { bytesOf, seededBlob } from '../../support/tiny-image.ts'

const blob = seededBlob('fault', 10_000)
const body = Buffer.from(bytesOf(blob.content))
const target = `/v2/r/blobs/${blob.digest}`

interface Received {
  /** Everything up to the empty line that ends the final headers. */
  readonly head: string
  readonly body: Buffer
  readonly endedBy: 'fin' | 'reset'
}

/** A client that takes whatever comes until the connection ends. */
async function exchange(port: number, request: string): Promise<Received> {
  const socket = net.connect(port, '127.0.0.1')
  const chunks: Buffer[] = []
  let endedBy: Received['endedBy'] = 'fin'
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.on('error', () => (endedBy = 'reset'))
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.write(request)
  await closed
  const bytes = Buffer.concat(chunks)
  const at = bytes.indexOf('\r\n\r\n')
  const headEnd = at < 0 ? bytes.length : at + 4
  return { head: bytes.toString('latin1', 0, headEnd), body: bytes.subarray(headEnd), endedBy }
}

async function startRegistry(): Promise<ScriptedRegistry> {
  const registry = await startScriptedRegistry()
  registry.repository('r').add(blob)
  return registry
}

/** Asks once for the blob under one step. The client closes after its answer unless `headers` say otherwise. */
async function pullUnder(step: Step, headers = 'Connection: close\r\n', method = 'GET'): Promise<Received> {
  await using registry = await startRegistry()
  registry.script({ kind: 'blob' }, step)
  return await exchange(registry.port, `${method} ${target} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)
}

const contentLength = (received: Received): number => Number(/^content-length: (\d+)/im.exec(received.head)?.[1])

test('without a script the answer is right and complete', async () => {
  const received = await pullUnder(fault.none())
  assert.match(received.head, /^HTTP\/1\.1 200 /)
  assert.deepEqual(received.body, body)
  assert.equal(received.endedBy, 'fin')
})

test('delay holds the headers for a time, or until a promise settles', async () => {
  await using registry = await startRegistry()
  const gate = Promise.withResolvers<void>()
  registry.script({ kind: 'blob' }, fault.delay(40), fault.delay(gate.promise))
  const [timed, gated] = [fetch(registry.url + target), fetch(registry.url + target)]
  await (await timed).arrayBuffer()
  const [first, second] = registry.requests
  assert.ok(first?.firstByteAt !== undefined && first.firstByteAt - first.at >= 38)
  assert.equal(second?.firstByteAt, undefined)
  gate.resolve()
  assert.equal((await gated).status, 200)
})

test('stall sends exactly n bytes and then nothing until released', async () => {
  await using registry = await startRegistry()
  const gate = Promise.withResolvers<void>()
  registry.script({ kind: 'blob' }, fault.stall(1234, gate.promise))
  const reading = exchange(registry.port, `GET ${target} HTTP/1.1\r\nConnection: close\r\n\r\n`)
  await until('the bytes are out', () => (registry.requests[0]?.bytesSent ?? 0) >= 1234)
  await new Promise((resolve) => setTimeout(resolve, 30))
  assert.equal(registry.requests[0]?.bytesSent, 1234)
  gate.resolve()
  assert.deepEqual((await reading).body, body)
})

test('a stall for ever, before the headers or in the body, ends with the server', async () => {
  const registry = await startRegistry()
  registry.script({ kind: 'blob' }, fault.stall(), fault.stall(5))
  const readings = [0, 1].map(() => exchange(registry.port, `GET ${target} HTTP/1.1\r\n\r\n`))
  await until('both stand', () => registry.requests[1]?.bytesSent === 5)
  await registry.close()
  const lengths = (await Promise.all(readings)).map((received) => received.body.length)
  assert.deepEqual(new Set(lengths), new Set([0, 5]))
  assert.deepEqual(
    registry.requests.map(({ status }) => status),
    [0, 200],
  )
})

for (const after of [0, 1, 5000, 10_000]) {
  test(`reset after ${after} bytes delivers them and then an RST`, async () => {
    const received = await pullUnder(fault.reset(after), '')
    assert.deepEqual(received.body, body.subarray(0, after))
    assert.equal(contentLength(received), body.length)
    assert.equal(received.endedBy, 'reset')
  })
  test(`cut after ${after} bytes delivers them and then a FIN`, async () => {
    const received = await pullUnder(fault.cut(after), '')
    assert.deepEqual(received.body, body.subarray(0, after))
    assert.equal(contentLength(received), body.length)
    assert.equal(received.endedBy, 'fin')
  })
}

test('reset and cut without an offset send nothing at all', async () => {
  assert.deepEqual(await pullUnder(fault.reset(), ''), { head: '', body: Buffer.alloc(0), endedBy: 'reset' })
  assert.deepEqual(await pullUnder(fault.cut(), ''), { head: '', body: Buffer.alloc(0), endedBy: 'fin' })
})

test('slice splits the body into segments, rate spreads it over time', async () => {
  await using registry = await startRegistry()
  registry.script({ kind: 'blob' }, fault.slice(100), fault.rate(100_000))
  const segments = await new Promise<readonly Buffer[]>((resolve) => {
    const socket = net.connect(registry.port, '127.0.0.1')
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('close', () => resolve(chunks))
    socket.write(`GET ${target} HTTP/1.1\r\nConnection: close\r\n\r\n`)
  })
  assert.ok(segments.length > 20, `${segments.length} segments`)
  await (await fetch(registry.url + target)).arrayBuffer()
  const slow = registry.requests[1]
  const ms = (slow?.endedAt ?? 0) - (slow?.at ?? 0)
  assert.ok(ms > 70, `10 kB at 100 kB/s took ${ms} ms`)
})

test('corrupt flips one byte of the blob, also where only a range covers it', async () => {
  const whole = await pullUnder(fault.corrupt(7000))
  assert.deepEqual(
    [...whole.body.entries()].filter(([at, byte]) => byte !== body[at]).map(([at]) => at),
    [7000],
  )
  const covering = await pullUnder(fault.corrupt(-1), 'Range: bytes=9990-\r\nConnection: close\r\n')
  assert.deepEqual(covering.body.subarray(0, 9), body.subarray(9990, 9999))
  assert.notEqual(covering.body[9], body[9999])
  const beside = await pullUnder(fault.corrupt(7000), 'Range: bytes=0-99\r\nConnection: close\r\n')
  assert.deepEqual(beside.body, body.subarray(0, 100))
})

test('resize changes the body and says so; lieLength says otherwise', async () => {
  const longer = await pullUnder(fault.resize(10))
  assert.equal(contentLength(longer), 10_010)
  assert.deepEqual(longer.body, Buffer.concat([body, Buffer.alloc(10)]))
  const shorter = await pullUnder(fault.resize(-10))
  assert.equal(contentLength(shorter), 9990)
  assert.deepEqual(shorter.body, body.subarray(0, 9990))
  const promisesMore = await pullUnder(fault.lieLength(5), '')
  assert.equal(contentLength(promisesMore), 10_005)
  assert.deepEqual(promisesMore.body, body)
  const promisesLess = await pullUnder(fault.lieLength(-5))
  assert.equal(contentLength(promisesLess), 9995)
  assert.deepEqual(promisesLess.body, body)
})

test('status, html and tooManyRequests replace the answer', async () => {
  const teapot = await pullUnder(fault.status(418, { 'X-Pot': ['a', 'b'] }, 'short'))
  assert.match(teapot.head, /^HTTP\/1\.1 418 .*X-Pot: a\r\nX-Pot: b\r\n/s)
  assert.equal(teapot.body.toString(), 'short')
  const portal = await pullUnder(fault.html())
  assert.match(portal.head, /^HTTP\/1\.1 200 .*text\/html/s)
  const limited = await pullUnder(fault.tooManyRequests(30))
  assert.match(limited.head, /^HTTP\/1\.1 429 .*Retry-After: 30\r\n/s)
  assert.match(limited.body.toString(), /TOOMANYREQUESTS/)
  const huge = await pullUnder(fault.hugeBody(3_000_000))
  assert.equal(huge.body.length, 3_000_000)
  assert.equal(huge.body.toString('latin1', 0, 12), '{"token":"aa')
})

for (const status of [301, 302, 303, 307, 308] as const) {
  test(`redirect answers ${status} with the location`, async () => {
    const received = await pullUnder(fault.redirect('http://127.0.0.1:1/x', status))
    assert.match(received.head, new RegExp(`^HTTP/1\\.1 ${status} .*Location: http://127\\.0\\.0\\.1:1/x\r\n`, 's'))
  })
}

test('garbage is sent as it is', async () => {
  const received = await pullUnder(fault.garbage('NOT HTTP\r\n'), '')
  assert.deepEqual([received.head, received.endedBy], ['NOT HTTP\r\n', 'fin'])
})

test('interim answers come before the final one', async () => {
  const received = await pullUnder(fault.interim(103, { Link: '</x>; rel=preload' }))
  assert.match(received.head, /^HTTP\/1\.1 103 .*Link: <\/x>; rel=preload\r\n\r\n$/s)
  assert.match(received.body.toString('latin1', 0, 20), /^HTTP\/1\.1 200 /)
})

test('gzip encodes the body, if asked only for those who accept it', async () => {
  const encoded = await pullUnder(fault.gzip())
  assert.match(encoded.head, /Content-Encoding: gzip/)
  assert.deepEqual(gunzipSync(encoded.body), body)
  const plain = await pullUnder(fault.gzip({ onlyIfAccepted: true }))
  assert.deepEqual(plain.body, body)
})

test('headers can be dropped and replaced', async () => {
  const received = await pullUnder([fault.noDigest(), fault.header('Content-Type', 'text/plain')])
  assert.doesNotMatch(received.head, /docker-content-digest/i)
  assert.match(received.head, /Content-Type: text\/plain\r\n/)
  const ranged = await pullUnder(fault.contentRange('bytes 1-100/9'), 'Range: bytes=0-99\r\nConnection: close\r\n')
  assert.match(ranged.head, /^HTTP\/1\.1 206 .*Content-Range: bytes 1-100\/9\r\n/s)
})

test('ignoreRange answers 200 with everything', async () => {
  const received = await pullUnder(fault.ignoreRange(), 'Range: bytes=5-9\r\nConnection: close\r\n')
  assert.match(received.head, /^HTTP\/1\.1 200 /)
  assert.deepEqual(received.body, body)
})

test('chunked and closeDelimited leave out Content-Length', async () => {
  const chunked = await pullUnder(fault.chunked())
  assert.match(chunked.head, /Transfer-Encoding: chunked/)
  assert.equal(chunked.body.toString('latin1'), `2710\r\n${body.toString('latin1')}\r\n0\r\n\r\n`)
  const truncated = await pullUnder([fault.chunked(), fault.cut(100)], '')
  assert.equal(truncated.body.toString('latin1'), `64\r\n${body.toString('latin1', 0, 100)}\r\n`)
  const delimited = await pullUnder(fault.closeDelimited(), '')
  assert.doesNotMatch(delimited.head, /content-length|transfer-encoding/i)
  assert.deepEqual(delimited.body, body)
})

test('unsolicited puts a second response on the idle connection', async () => {
  await using registry = await startRegistry()
  registry.script({ kind: 'blob' }, fault.unsolicited())
  const socket = net.connect(registry.port, '127.0.0.1')
  socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`)
  let received = ''
  for await (const chunk of socket.setEncoding('latin1')) {
    received += String(chunk)
    if (received.endsWith('poisoned')) break
  }
  assert.match(received, /^HTTP\/1\.1 200 .*HTTP\/1\.1 200 .*poisoned$/s)
})

test('a HEAD has the headers of its GET and no body, under faults as well', async () => {
  const plain = await pullUnder(fault.none(), 'Connection: close\r\n', 'HEAD')
  assert.deepEqual([contentLength(plain), plain.body.length], [body.length, 0])
  const reset = await pullUnder(fault.reset(0), '', 'HEAD')
  assert.deepEqual([contentLength(reset), reset.body.length, reset.endedBy], [body.length, 0, 'reset'])
})

test('steps are used up in order; permanent faults stay until stopped', async () => {
  await using registry = await startRegistry()
  const always = registry.scriptAlways({ kind: 'blob' }, fault.header('X-Always', 'yes'))
  const once = registry.script(/\/blobs\//, fault.status(503), fault.none(), fault.status(500))
  const statuses: number[] = []
  for (let pull = 0; pull < 4; pull++) {
    const response = await fetch(registry.url + target)
    await response.arrayBuffer()
    statuses.push(response.status)
    assert.equal(response.headers.get('x-always'), 'yes')
  }
  assert.deepEqual(statuses, [503, 200, 500, 200])
  assert.deepEqual([once.played, once.left, always.played], [3, 0, 4])
  always.stop()
  assert.equal((await fetch(registry.url + target)).headers.get('x-always'), null)
  assert.deepEqual(registry.requests[0]?.faults, ['reply', 'header'])
})

test('requests are recorded: headers, status, bytes, range, connection, abort', async () => {
  await using registry = await startRegistry()
  const headers = { 'X-Two': 'one', Range: 'bytes=100-199' }
  await (await fetch(`${registry.url}${target}?ns=docker.io`, { headers })).arrayBuffer()
  await (await fetch(registry.url + target)).arrayBuffer()
  registry.script({ kind: 'blob' }, fault.stall(50))
  const abort = new AbortController()
  const third = await fetch(registry.url + target, { signal: abort.signal })
  await third.body?.getReader().read()
  abort.abort()
  const [ranged, whole, aborted] = await registry.ended({ kind: 'blob' }, 3)
  assert.equal(ranged?.headers['x-two'], 'one')
  assert.equal(ranged?.query.get('ns'), 'docker.io')
  assert.deepEqual([ranged?.status, ranged?.offset, ranged?.bytesSent], [206, 100, 100])
  assert.deepEqual([whole?.status, whole?.bytesSent, whole?.aborted], [200, 10_000, false])
  assert.deepEqual([aborted?.bytesSent, aborted?.aborted], [50, true])
  assert.ok(
    whole?.firstByteAt !== undefined && whole.firstByteAt >= whole.at && (whole.endedAt ?? 0) >= whole.firstByteAt,
  )
  assert.equal(registry.count({ method: 'GET', isRange: true }), 1)
  assert.equal(registry.count({ path: target, status: 200, where: ({ aborted: isAborted }) => !isAborted }), 1)
  assert.equal(registry.bytesSent({ kind: 'blob' }), 10_150)
})

test('one connection carries several requests', async () => {
  await using registry = await startRegistry()
  const request = `HEAD ${target} HTTP/1.1\r\n`
  await exchange(registry.port, `${request}\r\n${request}Connection: close\r\n\r\n`)
  assert.deepEqual(
    registry.requests.map(({ connection, status }) => [connection, status]),
    [
      [1, 200],
      [1, 200],
    ],
  )
  assert.equal(registry.acceptedConnections, 1)
})

test('a closed server refuses, a restarted one answers on the same port', async () => {
  await using registry = await startRegistry()
  await (await fetch(`${registry.url}/v2/`)).text()
  await registry.close()
  await registry.close()
  await assert.rejects(fetch(`${registry.url}/v2/`), { message: 'fetch failed' })
  assert.equal(registry.openConnections, 0)
  await registry.listen()
  assert.equal((await fetch(`${registry.url}/v2/`)).status, 200)
  await registry.restart()
  assert.equal((await fetch(`${registry.url}/v2/`)).status, 200)
})

test('accepting can mean silence or an RST', async () => {
  await using registry = await startRegistry()
  registry.acceptMode = 'reset'
  const refused = await exchange(registry.port, 'GET /v2/ HTTP/1.1\r\n\r\n')
  assert.equal(refused.endedBy, 'reset')
  // Else it would be taken for the one that is held.
  await until('the refused one is gone', () => registry.openConnections === 0)
  registry.acceptMode = 'hold'
  const held = exchange(registry.port, 'GET /v2/ HTTP/1.1\r\n\r\n')
  await until('it is connected', () => registry.openConnections === 1)
  assert.equal(registry.count(), 0)
  registry.dropConnections()
  assert.equal((await held).head, '')
})

test('waiting for requests that do not come says which ones', async () => {
  await using registry = await startRegistry()
  await assert.rejects(registry.arrived({ kind: 'blob' }, 2, AbortSignal.timeout(20)), /saw 0 of 2 requests for .*blob/)
})
