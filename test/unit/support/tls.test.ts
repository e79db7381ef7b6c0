import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:https'
import { test } from 'node:test'
import * as nodeTls from 'node:tls'
import { fault, type RequestRecord, type ServerTls } from '../../support/fault-script.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { testAuthority, type Certificate } from '../../support/tls.ts'

const authority = testAuthority()

/** Pings a registry with this certificate over TLS; throws what the client throws. */
async function pingOver(tls: ServerTls, client?: Certificate): Promise<readonly RequestRecord[]> {
  await using registry = await startScriptedRegistry({ tls })
  const shown = client === undefined ? {} : { cert: client.cert, key: client.key }
  const sent = request(`${registry.url}/v2/`, { ca: authority.ca, agent: false, ...shown }).end()
  const [response] = await once(sent, 'response')
  response.resume()
  await once(response, 'end')
  return registry.requests
}

test('a server certificate of the authority is trusted', async () => {
  const [ping] = await pingOver(authority.server())
  assert.deepEqual([ping?.status, ping?.clientName], [200, undefined])
})

test('an expired certificate, another host and a foreign authority are refused', async () => {
  await assert.rejects(pingOver(authority.expired()), { code: 'CERT_HAS_EXPIRED' })
  await assert.rejects(pingOver(authority.wrongHost()), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  await using registry = await startScriptedRegistry({ tls: authority.server() })
  await assert.rejects(once(request(`${registry.url}/v2/`).end(), 'response'), {
    code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  })
})

test('a client certificate is asked for, checked and recorded', async () => {
  const tls = { ...authority.server(), clientCa: authority.ca }
  const [ping] = await pingOver(tls, authority.client('gateway'))
  assert.equal(ping?.clientName, 'gateway')
  await assert.rejects(pingOver(tls))
})

test('reset, cut and closing work beneath TLS', async () => {
  await using registry = await startScriptedRegistry({ tls: authority.server() })
  registry.script({ kind: 'ping' }, fault.reset(1), fault.cut(1), fault.stall(1))
  const ends: string[] = []
  for (const _ of ['reset', 'cut', 'stall']) {
    const socket = nodeTls.connect({ port: registry.port, host: '127.0.0.1', ca: authority.ca })
    socket.on('error', (error) => ends.push('code' in error ? String(error.code) : error.message))
    socket.on('end', () => ends.push('end'))
    let received = ''
    socket.on('data', (chunk: Buffer) => (received += chunk.toString()))
    socket.write('GET /v2/ HTTP/1.1\r\n\r\n')
    const closed = new Promise((resolve) => socket.once('close', resolve))
    if (registry.count() === 2) {
      await registry.arrived({ kind: 'ping' }, 3)
      while (!received.endsWith('{')) await once(socket, 'data')
      await registry.close()
    }
    await closed
    assert.ok(received.endsWith('\r\n\r\n{'), received)
  }
  assert.deepEqual(ends.slice(0, 2), ['ECONNRESET', 'end'])
  assert.equal(registry.openConnections, 0)
})

test('a handshake can be left without an answer', async () => {
  await using registry = await startScriptedRegistry({ tls: authority.server() })
  registry.acceptMode = 'hold'
  const socket = nodeTls.connect({ port: registry.port, host: '127.0.0.1', ca: authority.ca })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(socket.authorized, false)
  socket.destroy()
})

test('the same request gives the same certificate', () => {
  assert.equal(authority.server().cert, authority.server().cert)
  assert.notEqual(authority.client('one').cert, authority.client('two').cert)
  assert.equal(testAuthority(), authority)
})

test('a plain server refuses a TLS client at once', async () => {
  await using registry = await startScriptedRegistry()
  const socket = nodeTls.connect({ port: registry.port, host: '127.0.0.1' })
  await assert.rejects(once(socket, 'secureConnect'), { code: 'ECONNRESET' })
  assert.equal(registry.count(), 0)
})
