/** The listener against raw TCP: framing tricks, limits, TLS by name, and how it ends. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { GatewayError } from '../../../src/errors.ts'
import { Listener, type ListenerLimits } from '../../../src/http/server.ts'

interface Opened {
  readonly listener: Listener
  readonly seen: string[]
}

async function open(t: TestContext, limits: Partial<ListenerLimits> = {}, waitMs = 0): Promise<Opened> {
  const seen: string[] = []
  const listener = await Listener.open({
    host: '127.0.0.1',
    port: 0,
    place: 'listen[0].address',
    limits,
    serve: (incoming, outgoing) => {
      seen.push(`${incoming.method} ${incoming.url}`)
      setTimeout(() => outgoing.writeHead(200, { 'content-length': '2' }).end('ok'), waitMs).unref()
    },
  })
  t.after(() => listener.close())
  return { listener, seen }
}

/** Sends bytes as they are; gives all that came back until the other side closed, or it matches `until`. */
function raw(port: number, text: string, until?: RegExp): Promise<{ text: string; closed: boolean }> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    const finish = (closed: boolean): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ text: answer, closed })
    }
    const timer = setTimeout(() => finish(false), GIVE_UP_MS)
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1')
      if (until?.test(answer) === true) finish(false)
    })
    socket.on('error', () => finish(true))
    socket.on('close', () => finish(true))
    socket.write(Buffer.from(text, 'latin1'))
  })
}

const OK = /\r\n\r\nok$/
/** A listener that should have closed and did not. */
const GIVE_UP_MS = 20_000

const SECOND = 'GET /second HTTP/1.1\r\nHost: gw\r\n\r\n' // must never be seen
const head = (lines: string, target = '/v2/'): string => `GET ${target} HTTP/1.1\r\nHost: gw\r\n${lines}\r\n\r\n`

/** Each tries to make a second request out of what one reader takes for a body, or one host look like another. */
const smuggling: Readonly<Record<string, string>> = {
  'length and chunked': `POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SECOND}`,
  'chunked and length on GET': head('Transfer-Encoding: chunked\r\nContent-Length: 4') + `0\r\n\r\n${SECOND}`,
  'two lengths': head('Content-Length: 0\r\nContent-Length: 36') + SECOND,
  'two equal lengths': head('Content-Length: 5\r\nContent-Length: 5') + `12345${SECOND}`,
  'a list of lengths': head('Content-Length: 5, 5') + `12345${SECOND}`,
  'a negative length': head('Content-Length: -1') + SECOND,
  'a signed length': head('Content-Length: +5') + `12345${SECOND}`,
  'a length in hex': head('Content-Length: 0x5') + `12345${SECOND}`,
  'a length with a space in it': head('Content-Length: 3 6') + SECOND,
  'a huge length': head(`Content-Length: ${'9'.repeat(40)}`) + SECOND,
  'chunked twice': head('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked') + `0\r\n\r\n${SECOND}`,
  'chunked and identity': head('Transfer-Encoding: chunked, identity') + `0\r\n\r\n${SECOND}`,
  'an unknown coding': head('Transfer-Encoding: xchunked') + SECOND,
  'a coding with a tab': head('Transfer-Encoding:\tchunked') + `0\r\n\r\n${SECOND}`,
  'a coding with a vertical tab': head('Transfer-Encoding: \x0bchunked') + `0\r\n\r\n${SECOND}`,
  'a space before the colon': head('Transfer-Encoding : chunked') + `0\r\n\r\n${SECOND}`,
  'a folded header': head('X: a\r\n Transfer-Encoding: chunked') + `0\r\n\r\n${SECOND}`,
  'a header that begins with a space': head(' X: a') + SECOND,
  'bare line feeds': `GET /v2/ HTTP/1.1\nHost: gw\nContent-Length: 5\n\n12345${SECOND}`,
  'a bare carriage return': head('X: a\rContent-Length: 5') + `12345${SECOND}`,
  'a NUL in a header': head('X: a\0b') + SECOND,
  'a header without a colon': head('Broken') + SECOND,
  'an empty header name': head(': x') + SECOND,
  'a GET with a body': head('Content-Length: 5') + `12345${SECOND}`,
  'a GET with a body that is a request': head(`Content-Length: ${SECOND.length}`) + SECOND,
  'a GET with a chunked body': head('Transfer-Encoding: chunked') + `5\r\n12345\r\n0\r\n\r\n${SECOND}`,
  'a bad chunk size': `POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n${SECOND}`,
  'a chunk with an extension flood': `POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n1;${'a'.repeat(40_000)}\r\n`,
  'a chunk that ends wrongly': `POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n${SECOND}`,
  'a POST with a body': `POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5\r\n\r\n12345${SECOND}`,
  'Expect: 100-continue': head('Content-Length: 5\r\nExpect: 100-continue') + `12345${SECOND}`,
  'another expectation': head('Expect: more') + SECOND,
  'no Host': `GET /v2/ HTTP/1.1\r\n\r\n${SECOND}`,
  'no Host in HTTP/1.0': `GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n${SECOND}`,
  'two Hosts': `GET /v2/ HTTP/1.1\r\nHost: gw\r\nHost: other\r\n\r\n${SECOND}`,
  'two equal Hosts': `GET /v2/ HTTP/1.1\r\nHost: gw\r\nhost: gw\r\n\r\n${SECOND}`,
  'a Host with a path': `GET /v2/ HTTP/1.1\r\nHost: gw/x\r\n\r\n${SECOND}`,
  'a Host with a query': `GET /v2/ HTTP/1.1\r\nHost: gw?x\r\n\r\n${SECOND}`,
  'a Host with a user': `GET /v2/ HTTP/1.1\r\nHost: a@gw\r\n\r\n${SECOND}`,
  'a Host with a bad port': `GET /v2/ HTTP/1.1\r\nHost: gw:99999\r\n\r\n${SECOND}`,
  'an empty Host': `GET /v2/ HTTP/1.1\r\nHost:\r\n\r\n${SECOND}`,
  'absolute form for another host': `GET http://other/v2/ HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'absolute form with a user': `GET http://gw@other/v2/ HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'a backslash in the path': head('', '/v2\\x') + SECOND,
  'a fragment in the path': head('', '/v2/#x') + SECOND,
  'a space in the path': `GET /v2/ x HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'raw bytes in the path': head('', '/v2/\xff') + SECOND,
  'asterisk form': head('', '*') + SECOND,
  'no leading slash': head('', 'v2/') + SECOND,
  CONNECT: `CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'the preface of HTTP/2': `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${SECOND}`,
  'HTTP/0.9': `GET /v2/\r\n${SECOND}`,
  'HTTP/1.2': `GET /v2/ HTTP/1.2\r\nHost: gw\r\n\r\n${SECOND}`,
  'HTTP/3.0': `GET /v2/ HTTP/3.0\r\nHost: gw\r\n\r\n${SECOND}`,
  'an unknown method': `EVIL /v2/ HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'a lower-case method': `get /v2/ HTTP/1.1\r\nHost: gw\r\n\r\n${SECOND}`,
  'a TLS handshake': `\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03${'\0'.repeat(40)}\r\n\r\n${SECOND}`,
  garbage: `\0\xff\xfe\r\n\r\n${SECOND}`,
  'too many headers': head(Array.from({ length: 150 }, (_, at) => `X-${at}: 1`).join('\r\n')) + SECOND,
  'headers that are too large': head(`X: ${'a'.repeat(20_000)}`) + SECOND,
}

test(`${Object.keys(smuggling).length} smuggling probes: refused, closed, and no second request`, async (t) => {
  const { listener, seen } = await open(t)
  const answers = await Promise.all(
    Object.entries(smuggling).map(async ([name, probe], at) => {
      const numbered = probe.replaceAll('/second', `/second-${at}`)

      return { name, at, ...(await raw(listener.port, numbered)) }
    }),
  )
  for (const { name, at, text, closed } of answers) {
    await t.test(name, () => {
      assert.equal(seen.includes(`GET /second-${at}`), false, `${name}: the second request was executed`)
      assert.equal(closed, true, `${name}: the connection stays open: ${text.slice(0, 200)}`)
      assert.doesNotMatch(text, /HTTP\/1\.1 (?:1|2|3)\d\d/)
      assert.match(text, /^(?:HTTP\/1\.1 4\d\d |$)/)
      assert.ok((text.match(/HTTP\/1\.1 /g) ?? []).length <= 1, text)
    })
  }
  assert.deepEqual(seen, [])
  assert.match((await raw(listener.port, head(''), OK)).text, /^HTTP\/1\.1 200/)
})

test('what is refused is reported once, with the peer and the reason', async (t) => {
  const refused: string[] = []
  const ids: string[] = []
  const listener = await Listener.open({
    host: '127.0.0.1',
    port: 0,
    place: 'listen',
    serve: () => assert.fail('served'),
    onRefused: ({ requestId, client, status, message }) => {
      ids.push(requestId)
      refused.push(`${client} ${status} ${message}`)
    },
  })
  t.after(() => listener.close())
  const answers = [
    await raw(listener.port, head('Content-Length: 5') + `12345${SECOND}`),
    await raw(listener.port, `GET /v2/ HTTP/1.1\r\nHost: a/b\r\n\r\n${SECOND}`),
    await raw(listener.port, 'garbage\r\n\r\n'),
  ]
  // The client is told the same id, as a header and in the body.
  for (const [at, { text }] of answers.entries()) {
    assert.match(text, new RegExp(`\r\nx-request-id: ${ids[at]}\r\n`, 'i'))
    assert.ok(text.endsWith(`"detail":{"requestId":"${ids[at]}"}}]}`), text)
  }
  assert.equal(refused.length, 3)
  assert.match(refused[0] ?? '', /^127\.0\.0\.1 400 a GET or HEAD has no body$/)
  assert.match(refused[2] ?? '', /^127\.0\.0\.1 400 the request cannot be read: HPE_/)
})

test('what is merely unusual is served', async (t) => {
  const { listener, seen } = await open(t)
  const fine: readonly string[] = [
    head('Content-Length: 0'),
    head('', 'http://gw/v2/'),
    'GET /v2/ HTTP/1.1\r\nHost: GW.example.:5000\r\n\r\n',
    'GET /v2/ HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n',
    'HEAD /v2/ HTTP/1.0\r\nHost: gw\r\n\r\n',
    // We do not switch protocols and simply answer, as RFC 9110 section 7.8 allows: Java's client always offers h2c.
    head('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__'),
    'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n',
  ]
  for (const text of fine) assert.match((await raw(listener.port, text, OK)).text, /^HTTP\/1\.1 200/, text)
  assert.equal(seen.length, fine.length)
})

test('pipelined requests are answered in their order', async (t) => {
  const { listener, seen } = await open(t)
  const { text } = await raw(listener.port, head('', '/1') + head('', '/2') + head('', '/3'), /(?:\r\n\r\nok[^]*){3}/)
  assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 3)
  assert.deepEqual(seen, ['GET /1', 'GET /2', 'GET /3'])
})

test('garbage behind a request under way cuts the connection instead of adding to its body', async (t) => {
  const { listener } = await open(t, {}, 100)
  const { text, closed } = await raw(listener.port, `${head('')}GARBAGE\r\n\r\n`)
  assert.equal(closed, true)
  assert.doesNotMatch(text, /400/)
})

test('a client that sends its headers too slowly is closed', async (t) => {
  const { listener, seen } = await open(t, { headersTimeoutMs: 200, requestTimeoutMs: 300 })
  const { closed } = await raw(listener.port, 'GET /v2/ HTTP/1.1\r\nHost: g')
  assert.equal(closed, true)
  assert.deepEqual(seen, [])
})

test('connections beyond the limit are dropped, and those within it go on', async (t) => {
  const { listener } = await open(t, { maxConnections: 2 })
  const held = [connect(listener.port, '127.0.0.1'), connect(listener.port, '127.0.0.1')]
  await Promise.all(held.map((socket) => new Promise((resolve) => socket.once('connect', resolve))))
  assert.deepEqual(await raw(listener.port, head('')), { text: '', closed: true })
  const [first] = held
  const answer = new Promise<string>((resolve) => first?.once('data', (chunk) => resolve(chunk.toString())))
  first?.write(head(''))
  assert.match(await answer, /^HTTP\/1\.1 200/)
  for (const socket of held) socket.destroy()
})

test('a taken port is an error that names address, key and what to do', async (t) => {
  const { listener } = await open(t)
  const again = Listener.open({
    host: '127.0.0.1',
    port: listener.port,
    place: 'entrepot.yaml:2:14 listen[0].address',
    serve: () => undefined,
  })
  await assert.rejects(again, (error) => {
    assert.ok(error instanceof GatewayError)
    assert.equal(error.code, 'PORT_UNAVAILABLE')
    assert.match(
      error.message,
      /^entrepot\.yaml:2:14 listen\[0\]\.address: listening on 127\.0\.0\.1:\d+: the port is taken/,
    )
    return true
  })
})

test('an address that this machine does not have is told as that', async () => {
  const failed = Listener.open({ host: '192.0.2.1', port: 0, place: 'listen', serve: () => undefined })
  await assert.rejects(failed, /listening on 192\.0\.2\.1:0: no network interface/)
})

test('an IPv6 listener is named in brackets and serves', async (t) => {
  const listener = await Listener.open({
    host: '::1',
    port: 0,
    place: 'listen',
    serve: (_incoming, outgoing) => outgoing.end('six'),
  })
  t.after(() => listener.close())
  assert.equal(listener.url, `http://[::1]:${listener.port}`)
  assert.equal(await (await fetch(listener.url)).text(), 'six')
})

test('replies of another configuration take over without touching what is under way', async (t) => {
  const { listener } = await open(t, {}, 50)
  const first = fetch(listener.url).then((reply) => reply.text())
  while (listener.inFlight === 0) await sleep(1)
  listener.serveWith((_incoming, outgoing) => outgoing.end('new'))
  assert.equal(await (await fetch(listener.url)).text(), 'new')
  assert.equal(await first, 'ok')
})

test('draining finishes what is under way, says close, and then refuses', async (t) => {
  const { listener } = await open(t, {}, 200)
  const idle = connect(listener.port, '127.0.0.1')
  const idleClosed = new Promise((resolve) => idle.once('close', resolve))
  idle.on('error', () => undefined)
  const running = raw(listener.port, head(''))
  while (listener.inFlight === 0) await sleep(1)
  const drained = listener.drain({ delayMs: 50, timeoutMs: 2000 })
  const late = raw(listener.port, head(''))
  const [first, second] = [await running, await late]
  for (const { text, closed } of [first, second]) {
    assert.match(text, /^HTTP\/1\.1 200[^]*Connection: close/i)
    assert.equal(closed, true)
  }
  assert.equal(await drained, true)
  await idleClosed
  assert.deepEqual(await raw(listener.port, head('')), { text: '', closed: true })
})

for (const [when, delayMs, waitMs] of [
  ['before', 200, 0],
  ['after', 0, 200],
] as const) {
  test(`a drain waits for the client to end a connection whose reply is out ${when} the listener closes`, async (t) => {
    const { listener } = await open(t, {}, waitMs)
    const socket = connect({ port: listener.port, host: '127.0.0.1', allowHalfOpen: true })
    t.after(() => socket.destroy())
    await once(socket, 'connect')
    socket.resume().write(head(''))
    await sleep(waitMs / 2)
    const drained = listener.drain({ delayMs, timeoutMs: 5000 })
    if (waitMs === 0) socket.write(head(''))
    await once(socket, 'end')
    assert.equal(await Promise.race([drained, sleep(500, 'still waiting')]), 'still waiting')
    socket.end()
    assert.equal(await drained, true)
  })
}

test('what outlasts the drain is cut at its deadline', async (t) => {
  const { listener } = await open(t, {}, 60_000)
  const running = raw(listener.port, head(''))
  while (listener.inFlight === 0) await sleep(1)
  assert.equal(await listener.drain({ delayMs: 0, timeoutMs: 100 }), false)
  assert.deepEqual(await running, { text: '', closed: true })
})

test('closing twice, and draining after closing, is no error', async (t) => {
  const { listener } = await open(t)
  await Promise.all([listener.close(), listener.close()])
  assert.equal(await listener.drain({ delayMs: 0, timeoutMs: 100 }), true)
})
