/** What a gateway says when it cannot start, and that it takes nothing with it. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, readdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { connect } from 'node:tls'
import { join } from 'node:path'
import { test } from 'node:test'
import { codeOf } from '../../src/errors.ts'
import { ask } from '../support/client.ts'
import { startPair } from '../support/gateway-pair.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { tinyImage } from '../support/tiny-image.ts'
import { testAuthority } from '../support/tls.ts'

const UNREACHED = { origin: 'url: http://127.0.0.1:9' }
const main = (port: number): string =>
  `listen: [{ address: '127.0.0.1:${port}', default: origin }]\nadmin: { address: 127.0.0.1:0 }`

/** How starting fails: code and message. */
async function refusal(
  starting: ReturnType<typeof startTestGateway>,
): Promise<readonly [code: string | undefined, text: string]> {
  try {
    await using _started = await starting
  } catch (error) {
    return [codeOf(error), error instanceof Error ? error.message : String(error)]
  }
  return [undefined, 'it started']
}

test('a folder that another gateway uses is refused, and free again when that one stops', async () => {
  await using pair = await startPair()
  const start = (): ReturnType<typeof startTestGateway> =>
    startTestGateway({ upstreams: UNREACHED, default: 'origin', data: pair.gateway.data })
  const [code, text] = await refusal(start())
  assert.equal(code, 'STORE_UNUSABLE')
  assert.match(text, new RegExp(`${pair.gateway.data}.*(in use|another)`, 's'))
  await pair.gateway.stop()
  assert.deepEqual(await refusal(start()), [undefined, 'it started'])
})

test('a folder with another registry’s bytes is refused by name, and nothing in it is touched', async () => {
  await using pair = await startPair()
  pair.registry.load(tinyImage({ seed: 'origin', repository: 'acme/app', tag: '1' }))
  await pair.get('acme/app/manifests/1')
  await pair.gateway.stop()
  const before = (await readdir(pair.gateway.data, { recursive: true })).filter((name) => name.startsWith('origin'))
  const [code, text] = await refusal(startTestGateway({ upstreams: UNREACHED, data: pair.gateway.data }))
  assert.equal(code, 'STORE_UNUSABLE')
  assert.ok(text.includes(pair.registry.host) && text.includes('127.0.0.1:9'), text)
  const after = (await readdir(pair.gateway.data, { recursive: true })).filter((name) => name.startsWith('origin'))
  assert.deepEqual(after.sort(), before.sort())
})

test('a port that is taken is refused with its place, and the folder is free again', async () => {
  const squatter = createServer().listen(0, '127.0.0.1')
  await once(squatter, 'listening')
  const address = squatter.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  await using folder = await temporaryFolder()
  const data = join(folder.path, 'data')
  const [code, text] = await refusal(startTestGateway({ upstreams: UNREACHED, main: main(port), data }))
  assert.equal(code, 'PORT_UNAVAILABLE')
  assert.match(text, new RegExp(`entrepot\\.yaml:2:\\d+ listen\\[0\\]\\.address: listening on 127\\.0\\.0\\.1:${port}`))
  assert.deepEqual(await refusal(startTestGateway({ upstreams: UNREACHED, data })), [undefined, 'it started'])
  squatter.close()
})

test(
  'a folder that is not writable is refused with what mends it',
  { skip: process.getuid?.() !== 0 && 'needs to become another user' },
  async () => {
    await using folder = await temporaryFolder()
    const data = join(folder.path, 'data')
    await writeFile(
      join(folder.path, 'entrepot.yaml'),
      `data: ${data}\nlisten: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n`,
    )
    await chmod(folder.path, 0o755)
    const command = new URL('../../src/main.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [command, 'serve', '--config', join(folder.path, 'entrepot.yaml')], {
      uid: 65534,
      gid: 65534,
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: AbortSignal.timeout(20_000),
    })
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    const [status] = await once(child, 'close')
    assert.notEqual(status, 0)
    assert.ok(said.includes(data) && /chown|permission|writ/i.test(said), said)
    await chown(folder.path, 0, 0)
  },
)

test('nothing of the network is needed to start, and what is held serves', async () => {
  await using pair = await startPair()
  const image = tinyImage({ seed: 'dark', repository: 'acme/app', tag: '1' })
  pair.registry.load(image)
  await pair.get('acme/app/manifests/1')
  await pair.gateway.stop()
  await pair.registry.close()
  await using gateway = await startTestGateway({
    upstreams: { origin: `url: ${pair.registry.url}`, dark: 'url: https://registry.invalid' },
    default: 'origin',
    data: pair.gateway.data,
  })
  assert.equal((await ask(`${gateway.url}/v2/acme/app/manifests/1`)).status, 200)
  assert.equal((await ask(`${gateway.url}/v2/dark/acme/app/manifests/1`)).status, 503)
})

test('each host name is answered with its own certificate, and SNI alone selects the upstream', async () => {
  await using registry = await startScriptedRegistry()
  registry.load(tinyImage({ seed: 'tls', repository: 'acme/app', tag: '1' }))
  const authority = testAuthority()
  const one = authority.server({ names: ['one.mirror.test'] })
  const rest = authority.server({ names: ['gateway.test'] })
  const tls = [
    '    tls:',
    `      - { cert: ${one.certFile}, key: ${one.keyFile}, hosts: [one.mirror.test] }`,
    `      - { cert: ${rest.certFile}, key: ${rest.keyFile} }`,
  ]
  await using gateway = await startTestGateway({
    upstreams: { 'one.test': `url: ${registry.url}\nroutes: { hosts: [one.mirror.test] }` },
    main: ['listen:', '  - address: 127.0.0.1:0', ...tls, 'admin: { address: 127.0.0.1:0 }'].join('\n'),
  })
  const head = async (servername: string, host: string): Promise<string> => {
    const socket = connect({ host: '127.0.0.1', port: gateway.port, servername, ca: authority.ca })
    await once(socket, 'secureConnect')
    socket.write(`HEAD /v2/acme/app/manifests/1 HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    let text = ''
    for await (const chunk of socket) text += String(chunk)
    return text.split('\r\n')[0] ?? ''
  }
  assert.equal(await head('one.mirror.test', 'one.mirror.test'), 'HTTP/1.1 200 OK')
  assert.equal(await head('gateway.test', 'gateway.test'), 'HTTP/1.1 404 Not Found')
  await assert.rejects(head('other.test', 'other.test'), /altnames/)
})
