import assert from 'node:assert/strict'
import { createServer, get, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ByteSource } from '../../../src/async/byte-source.ts'
import { codeOf, GatewayError } from '../../../src/errors.ts'
import type { Reply } from '../../../src/http/reply.ts'
import { ReplyWriter, type ReplyWriterOptions, type WriteResult } from '../../../src/http/writer.ts'

interface SourceOptions {
  /** Most bytes one read gives. */
  readonly step?: number
  /** Position from which reads fail. */
  readonly failAt?: number
  /** Position from which reads wait until the source is closed. */
  readonly waitAt?: number
}

/** A source over `bytes` that counts how often it is closed. */
function sourceOf(bytes: Buffer, options: SourceOptions = {}): ByteSource & { closed: number } {
  const closing = Promise.withResolvers<never>()
  closing.promise.catch(() => undefined)
  return {
    size: bytes.length,
    closed: 0,
    async read(target, position) {
      await sleep(0)
      if (options.failAt !== undefined && position >= options.failAt) throw new GatewayError('UPSTREAM_ERROR', 'cut')
      if (options.waitAt !== undefined && position >= options.waitAt) return closing.promise
      const length = Math.min(target.length, bytes.length - position, options.step ?? Infinity)
      return bytes.copy(target, 0, position, position + length)
    },
    async close() {
      this.closed++
      closing.reject(new Error('closed'))
    },
  }
}

interface Served {
  readonly port: number
  readonly results: WriteResult[]
  readonly errors: unknown[]
  readonly done: () => Promise<void>
}

/** A server that writes what `reply` gives for each request. */
async function serve(t: TestContext, reply: () => Reply, options: ReplyWriterOptions = {}): Promise<Served> {
  const writer = new ReplyWriter(options)
  const results: WriteResult[] = []
  const errors: unknown[] = []
  const running = new Set<Promise<void>>()
  const answer = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    try {
      results.push(await writer.write(reply(), incoming, outgoing))
    } catch (error) {
      errors.push(error)
      outgoing.writeHead(503).end()
    }
  }
  const server = createServer((incoming, outgoing) => {
    const work = answer(incoming, outgoing)
    running.add(work)
    void work.finally(() => running.delete(work))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { port, results, errors, done: async () => void (await Promise.all(running)) }
}

function whole(source: ByteSource): Reply {
  const headers = { 'content-length': String(source.size), etag: '"x"' }
  return { status: 200, headers, body: { source, segments: [{ from: 0, to: source.size }] } }
}

function fetchFrom(
  port: number,
  method = 'GET',
): Promise<{ status: number; headers: object; body: Buffer; cut: boolean }> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: '127.0.0.1', method, agent: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', () => undefined)
      response.on('close', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: { ...response.headers, date: '' },
          body: Buffer.concat(chunks),
          cut: !response.complete,
        }),
      )
    })
    asked.on('error', reject)
    asked.end()
  })
}

function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff))
}

test('bodies of every size arrive whole, and their source is closed once', async (t) => {
  for (const size of [0, 1, 1000, 65_536, 65_537, 524_288, 1_500_000]) {
    const bytes = pattern(size)
    const source = sourceOf(bytes)
    const served = await serve(t, () => whole(source))
    const reply = await fetchFrom(served.port)
    await served.done()
    assert.equal(reply.cut, false)
    assert.ok(reply.body.equals(bytes), `${size} bytes`)
    assert.equal(source.closed, 1)
    assert.deepEqual(served.results, [{ bytes: size, aborted: false, slow: false, error: undefined }])
  }
})

test('short reads, as a fill gives them, are sent as they come', async (t) => {
  const bytes = pattern(200_000)
  const served = await serve(t, () => whole(sourceOf(bytes, { step: 3333 })))
  assert.ok((await fetchFrom(served.port)).body.equals(bytes))
})

test('segments of text and ranges arrive in their order', async (t) => {
  const bytes = pattern(1_000_000)
  const source = sourceOf(bytes)
  const segments = [
    Buffer.from('a:'),
    { from: 900_000, to: 1_000_000 },
    Buffer.from('b:'),
    { from: 3, to: 5 },
    Buffer.from('.'),
  ]
  const expected = Buffer.concat([
    Buffer.from('a:'),
    bytes.subarray(900_000),
    Buffer.from('b:'),
    bytes.subarray(3, 5),
    Buffer.from('.'),
  ])
  const headers = { 'content-length': String(expected.length) }
  const served = await serve(t, () => ({ status: 206, headers, body: { source, segments } }))
  const reply = await fetchFrom(served.port)
  assert.equal(reply.status, 206)
  assert.ok(reply.body.equals(expected))
  assert.equal(source.closed, 1)
})

test('HEAD has the headers of GET and no body, and reads nothing', async (t) => {
  const source = sourceOf(pattern(1000), { failAt: 0 })
  const replies: Reply[] = [
    whole(sourceOf(pattern(1000))),
    whole(source),
    { status: 200, headers: { 'content-length': '3' }, body: Buffer.from('abc') },
    { status: 200, headers: { 'content-length': '3' }, body: Buffer.from('abc') },
  ]
  const served = await serve(t, () => replies.shift() ?? assert.fail())
  const get1 = await fetchFrom(served.port)
  const head1 = await fetchFrom(served.port, 'HEAD')
  assert.deepEqual(head1.headers, get1.headers)
  assert.equal(head1.body.length, 0)
  assert.equal(source.closed, 1)
  const get2 = await fetchFrom(served.port)
  const head2 = await fetchFrom(served.port, 'HEAD')
  assert.deepEqual(head2.headers, get2.headers)
})

test('a source that fails before its first byte leaves room for an error reply', async (t) => {
  const source = sourceOf(pattern(1000), { failAt: 0 })
  const segments = [Buffer.from('text before it'), { from: 0, to: 1000 }]
  const served = await serve(t, () => ({ status: 206, headers: {}, body: { source, segments } }))
  assert.equal((await fetchFrom(served.port)).status, 503)
  assert.equal(codeOf(served.errors[0]), 'UPSTREAM_ERROR')
  assert.equal(source.closed, 1)
})

test('a source that fails later cuts the connection and never ends the body cleanly', async (t) => {
  const source = sourceOf(pattern(1_000_000), { failAt: 600_000, step: 100_000 })
  const served = await serve(t, () => whole(source))
  const reply = await fetchFrom(served.port)
  await served.done()
  assert.equal(reply.cut, true)
  assert.ok(reply.body.length <= 600_000)
  assert.equal(source.closed, 1)
  assert.equal(codeOf(served.results[0]?.error), 'UPSTREAM_ERROR')
  assert.equal(served.results[0]?.aborted, false)
})

test('a client that leaves while the source waits frees the source at once', async (t) => {
  const source = sourceOf(pattern(1_000_000), { waitAt: 500_000, step: 100_000 })
  const served = await serve(t, () => whole(source))
  const asked = get({ port: served.port, host: '127.0.0.1', agent: false }, (response) => {
    response.once('data', () => asked.destroy())
    response.on('error', () => undefined)
  })
  asked.on('error', () => undefined)
  while (served.results.length === 0) await sleep(5)
  assert.equal(source.closed, 1)
  assert.equal(served.results[0]?.aborted, true)
  assert.equal(served.results[0]?.error, undefined)
})

test('clients that leave at any moment cost no buffer', async (t) => {
  const bytes = pattern(700_000)
  const sources: { closed: number }[] = []
  const next = (): Reply => {
    const source = sourceOf(bytes, { step: 50_000 })
    sources.push(source)
    return whole(source)
  }
  const served = await serve(t, next, { totalBytes: 1024 * 1024, largeBytes: 128 * 1024 })
  for (let round = 0; round < 10; round++) {
    const leaving = Array.from({ length: 12 }, async (_, at) => {
      const client = connect(served.port, '127.0.0.1')
      client.on('error', () => undefined)
      client.resume()
      client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      await sleep(at)
      client.destroy()
    })
    await Promise.all(leaving)
  }
  for (let waited = 0; waited < 20_000 && served.results.length + served.errors.length < sources.length; waited += 10) {
    await sleep(10)
  }
  assert.deepEqual(
    sources.filter(({ closed }) => closed !== 1),
    [],
  )
  for (let at = 0; at < 10; at++) assert.ok((await fetchFrom(served.port)).body.equals(bytes))
})

test('200 readers at once all get their bytes, through bounded buffers', async (t) => {
  const bytes = pattern(300_000)
  const options = { totalBytes: 4 * 1024 * 1024 }
  const served = await serve(t, () => whole(sourceOf(bytes)), { ...options, largeBytes: 128 * 1024 })
  const replies = await Promise.all(Array.from({ length: 200 }, () => fetchFrom(served.port)))
  const good = replies.filter(({ body }) => body.equals(bytes)).length
  // Beyond the buffers a new reader is told to come back, and nobody gets a wrong byte.
  assert.equal(good + served.errors.length, 200)
  assert.ok(served.errors.every((error) => codeOf(error) === 'OVERLOADED'))
  assert.ok(good > 20)
})

test('a reader that takes nothing is closed after the stall time; one that is slow is not', async (t) => {
  const source = sourceOf(Buffer.alloc(32 * 1024 * 1024))
  const served = await serve(t, () => whole(source), { stallMs: 300, minBytesPerSecond: 1024 })
  const client = connect(served.port, '127.0.0.1')
  client.on('error', () => undefined)
  client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  client.pause()
  const slow = connect(served.port, '127.0.0.1')
  slow.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  let taken = 0
  slow.on('data', (chunk) => {
    taken += chunk.length
    slow.pause()
    setTimeout(() => slow.resume(), 2)
  })
  while (served.results.length === 0) await sleep(20)
  assert.deepEqual([served.results[0]?.slow, served.results[0]?.aborted], [true, true])
  const before = taken
  while (taken === before && served.results.length === 1) await sleep(5)
  assert.ok(taken > before || served.results[1]?.slow === false)
  client.destroy()
  slow.destroy()
})

test('a reader below the lowest rate is closed although it takes a little', async (t) => {
  const bytes = Buffer.alloc(32 * 1024 * 1024)
  const served = await serve(t, () => whole(sourceOf(bytes)), { stallMs: 400, minBytesPerSecond: 512 * 1024 * 1024 })
  const client = connect(served.port, '127.0.0.1')
  client.on('error', () => undefined)
  client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  // A trickle: every 100 ms a little, so that the socket is never quite still.
  const trickle = setInterval(() => client.read(2000), 100)
  client.pause()
  while (served.results.length === 0) await sleep(20)
  clearInterval(trickle)
  assert.equal(served.results[0]?.slow, true)
  client.destroy()
})

test('while the source waits, the client is not called slow', async (t) => {
  const source = sourceOf(pattern(1000), { waitAt: 500, step: 100 })
  const served = await serve(t, () => whole(source), { stallMs: 100 })
  const asked = get({ port: served.port, host: '127.0.0.1', agent: false }, (response) => {
    response.resume()
    response.on('error', () => undefined)
  })
  asked.on('error', () => undefined)
  await sleep(500)
  assert.equal(served.results.length, 0)
  asked.destroy()
  await served.done()
  assert.equal(served.results[0]?.slow, false)
})

test('a connection serves its next request after a reply of any kind', async (t) => {
  const replies: Reply[] = [
    whole(sourceOf(pattern(70_000))),
    { status: 304, headers: { etag: '"x"' }, body: undefined },
    { status: 200, headers: { 'content-length': '3' }, body: Buffer.from('abc') },
  ]
  const served = await serve(t, () => replies.shift() ?? assert.fail())
  const client = connect(served.port, '127.0.0.1')
  let text = ''
  client.on('data', (chunk) => (text += chunk.toString('latin1')))
  for (let at = 0; at < 3; at++) client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  while (!text.endsWith('abc')) await sleep(5)
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 304', 'HTTP/1.1 200'])
  client.destroy()
})
