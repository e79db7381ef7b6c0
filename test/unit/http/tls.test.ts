/** TLS at the listener: a certificate for each name, replaced while it runs, and clients that must show one. */
import assert from 'node:assert/strict'
import { connect as connectPlain } from 'node:net'
import { test, type TestContext } from 'node:test'
import { connect, type ConnectionOptions, type PeerCertificate } from 'node:tls'
import { codeOf } from '../../../src/errors.ts'
import type { TlsOptions } from '../../../src/http/certificates.ts'
import { Listener } from '../../../src/http/server.ts'
import { testAuthority } from '../../support/tls.ts'

const authority = testAuthority()
const first = authority.server({ names: ['gw.example'] })
const ghcr = authority.server({ names: ['ghcr.gw.example'] })
const wild = authority.server({ names: ['*.mirror.example'] })
const tls: TlsOptions = {
  ...first,
  named: [
    { hosts: ['GHCR.gw.example'], ...ghcr },
    { hosts: ['*.mirror.example'], ...wild },
  ],
}

async function open(t: TestContext, options: TlsOptions): Promise<Listener> {
  const listener = await Listener.open({
    host: '127.0.0.1',
    port: 0,
    place: 'listen[0].tls',
    tls: options,
    serve: (_incoming, outgoing) => outgoing.end('ok'),
  })
  t.after(() => listener.close())
  return listener
}

function namesFor(port: number, options: ConnectionOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      port,
      host: '127.0.0.1',
      ca: authority.ca,
      checkServerIdentity: () => undefined,
      ...options,
    })
    socket.once('secureConnect', () => {
      const certificate: PeerCertificate = socket.getPeerCertificate()
      socket.write('GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n')
      socket.once('data', () => {
        resolve(certificate.subjectaltname ?? '')
        socket.destroy()
      })
    })
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('closed')))
  })
}

test('each host name gets its own certificate, every other one the first', async (t) => {
  const { port } = await open(t, tls)
  const rows: readonly (readonly [string | undefined, string])[] = [
    ['ghcr.gw.example', 'DNS:ghcr.gw.example'],
    ['GHCR.gw.Example', 'DNS:ghcr.gw.example'],
    ['quay.mirror.example', 'DNS:*.mirror.example'],
    ['a.b.mirror.example', 'DNS:gw.example'],
    ['mirror.example', 'DNS:gw.example'],
    ['unknown.example', 'DNS:gw.example'],
    ['localhost', 'DNS:gw.example'],
    [undefined, 'DNS:gw.example'],
  ]
  for (const [servername, expected] of rows) {
    assert.equal(
      await namesFor(port, servername === undefined ? {} : { servername }),
      expected,
      servername ?? 'no name',
    )
  }
})

test('new certificates are used by new connections, and bad ones change nothing', async (t) => {
  const listener = await open(t, first)
  listener.replaceTls(ghcr)
  assert.equal(await namesFor(listener.port, {}), 'DNS:ghcr.gw.example')
  assert.throws(
    () => listener.replaceTls({ cert: 'nonsense', key: first.key }),
    (error) => codeOf(error) === 'CONFIG_INVALID',
  )
  assert.equal(await namesFor(listener.port, {}), 'DNS:ghcr.gw.example')
})

test('a certificate that does not fit its key refuses the start, naming the place', async () => {
  const opened = Listener.open({
    port: 0,
    place: 'entrepot.yaml:4:10 tls',
    tls: { cert: first.cert, key: ghcr.key },
    serve: () => undefined,
  })
  await assert.rejects(opened, (error) => {
    assert.equal(codeOf(error), 'CONFIG_INVALID')
    assert.match(String(error), /entrepot\.yaml:4:10 tls: loading the certificate and its key/)
    assert.doesNotMatch(String(error), /PRIVATE KEY/)
    return true
  })
})

test('with a client CA only clients with its certificate are served, under every name', async (t) => {
  const { port } = await open(t, { ...tls, clientCa: authority.ca })
  const { cert, key } = authority.client()
  for (const servername of ['gw.example', 'ghcr.gw.example']) {
    assert.match(await namesFor(port, { servername, cert, key }), /DNS:/)
    await assert.rejects(namesFor(port, { servername }))
  }
})

test('plain text on a TLS port, and a broken handshake, end the connection and nothing else', async (t) => {
  const { port } = await open(t, first)
  for (const text of ['GET / HTTP/1.1\r\nHost: gw\r\n\r\n', '\x16\x03\x01\x00\x05nonsense']) {
    await new Promise<void>((resolve) => {
      const socket = connectPlain(port, '127.0.0.1', () => socket.write(text))
      socket.on('error', () => undefined)
      socket.resume()
      socket.once('close', () => resolve())
    })
  }
  assert.equal(await namesFor(port, {}), 'DNS:gw.example')
})
