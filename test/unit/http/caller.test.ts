import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { test, type TestContext } from 'node:test'
import { connect, TLSSocket, type ConnectionOptions } from 'node:tls'
import type { Caller } from '../../../src/access/client-auth.ts'
import { Callers } from '../../../src/http/caller.ts'
import { Listener } from '../../../src/http/server.ts'
import { TestAuthority, testAuthority } from '../../support/tls.ts'

const authority = testAuthority()
const server = authority.server()

/** A listener that asks for certificates and lets everybody finish the handshake; `seen` is what it made of them. */
async function start(t: TestContext): Promise<{ port: number; seen: Caller[] }> {
  const callers = new Callers(() => false)
  const seen: Caller[] = []
  const listener = await Listener.open({
    host: '127.0.0.1',
    port: 0,
    place: 'listen',
    tls: { cert: server.cert, key: server.key, clientCa: authority.ca, admitsUncertified: true },
    serve: (incoming: IncomingMessage, outgoing) => {
      seen.push(callers.of(incoming))
      outgoing.end('served')
    },
  })
  t.after(() => listener.close())
  return { port: listener.port, seen }
}

/** One request over a connection of its own; resolves to the newest session that the server offered. */
async function visit(
  port: number,
  options: ConnectionOptions,
): Promise<{ session: Buffer | undefined; reused: boolean }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ session: Buffer | undefined; reused: boolean }>()
  let session: Buffer | undefined
  let reused = false
  const socket: TLSSocket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: authority.ca, ...options })
  socket.on('session', (offered: Buffer) => (session = offered))
  socket.on('error', reject)
  socket.on('secureConnect', () => {
    reused = socket.isSessionReused()
    socket.write('GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n')
  })
  socket.resume()
  socket.on('close', () => resolve({ session, reused }))
  return promise
}

test('a client is its address, and nobody without a certificate', async (t) => {
  const { port, seen } = await start(t)
  await visit(port, {})
  assert.deepEqual(seen, [{ address: '127.0.0.1', authorization: undefined, certificate: undefined }])
})

test('the names of a good certificate are read, the common name first', async (t) => {
  const { port, seen } = await start(t)
  const { cert, key } = authority.client('ci')
  await visit(port, { cert, key })
  assert.deepEqual(seen[0]?.certificate, { isValid: true, names: ['ci'] })
})

test("a server's certificate of the same authority is none of a client", async (t) => {
  const { port, seen } = await start(t)
  const { cert, key } = authority.server({ names: ['n1.example', '192.0.2.7'] })
  await visit(port, { cert, key })
  assert.deepEqual(seen[0]?.certificate, { isValid: false, reason: 'INVALID_PURPOSE' })
})

test("another authority's certificate counts for nothing, whatever it says", async (t) => {
  const { port, seen } = await start(t)
  const { cert, key } = new TestAuthority().client('ci')
  await visit(port, { cert, key })
  const [caller] = seen
  assert.equal(caller?.certificate?.isValid, false)
})

test('alternative names of every kind count, however they are quoted', () => {
  const rows: readonly (readonly [unknown, string | undefined, readonly string[]])[] = [
    [['a', 'b'], undefined, ['a', 'b']],
    [
      undefined,
      'DNS:n1.example, URI:spiffe://site/ci, email:ci@example, IP Address:192.0.2.7',
      ['n1.example', 'spiffe://site/ci', 'ci@example', '192.0.2.7'],
    ],
    ['ci', 'DNS:"a, DNS:admin", DNS:b', ['ci', 'a, DNS:admin', 'b']],
    ['ci', 'DNS:"a\\u0000b", othername:<unsupported>, DirName:CN=admin', ['ci', 'a\u0000b']],
    ['ci', 'DNS:"a\\q"', ['ci']],
    ['ci', '', ['ci']],
  ]
  for (const [CN, subjectaltname, names] of rows) {
    // A connection as Node shows it once its certificate is verified.
    const socket: unknown = Object.create(TLSSocket.prototype, {
      authorized: { value: true },
      getPeerCertificate: { value: () => ({ subject: CN === undefined ? {} : { CN }, subjectaltname }) },
      remoteAddress: { value: '192.0.2.1' },
    })
    const caller = new Callers(() => false).of({ socket, headers: {} } as IncomingMessage)
    assert.deepEqual(caller.certificate, { isValid: true, names })
  }
})

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`a resumed ${version} session is worth what its first handshake was`, async (t) => {
    const stranger = new TestAuthority().client('ci')
    const good = authority.client('ci')
    const rows: readonly (readonly [ConnectionOptions, (caller: Caller | undefined) => void])[] = [
      [{}, (caller) => assert.equal(caller?.certificate, undefined)],
      [stranger, (caller) => assert.equal(caller?.certificate?.isValid ?? false, false)],
      [good, (caller) => assert.deepEqual(caller?.certificate, { isValid: true, names: ['ci'] })],
    ]
    for (const [options, check] of rows) {
      const { port, seen } = await start(t)
      const limits = { minVersion: version, maxVersion: version } as const
      const { session } = await visit(port, { ...options, ...limits })
      assert.ok(session)
      const { reused } = await visit(port, { ...limits, session })
      t.diagnostic(`${version} with ${'cert' in options ? 'a certificate' : 'none'}: session reused: ${reused}`)
      assert.equal(reused, true)
      assert.equal(seen.length, 2)
      check(seen[0])
      check(seen[1])
    }
  })
}

test('requests on one connection read its certificate once', async (t) => {
  const { port, seen } = await start(t)
  const { cert, key } = authority.client('ci')
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: authority.ca, cert, key })
  t.after(() => agent.destroy())
  for (const _ of [1, 2]) {
    await new Promise<void>((resolve, reject) => {
      request({ port, host: '127.0.0.1', servername: 'localhost', agent }, (reply) => {
        reply.resume().on('end', resolve)
      })
        .on('error', reject)
        .end()
    })
  }
  assert.equal(seen[0]?.certificate, seen[1]?.certificate)
})
