/** One image by every way of naming its upstream, and nothing undeclared is ever called. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask, type AskOptions } from '../support/client.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { bytesOf, tinyImage } from '../support/tiny-image.ts'

const ways = (
  port: number,
): Readonly<Record<string, { readonly base: string; readonly options?: AskOptions; readonly echo?: string }>> => ({
  'inner prefix': { base: '/v2/two.test/acme/app' },
  'outer prefix': { base: '/two.test/v2/acme/app' },
  'configured prefix': { base: '/v2/second/acme/app' },
  host: { base: '/v2/acme/app', options: { headers: { host: 'two.mirror.test' } } },
  'host with port': { base: '/v2/acme/app', options: { headers: { host: `two.mirror.test:${port}` } } },
  ns: { base: '/v2/acme/app?ns=two.test', echo: 'two.test' },
  alias: { base: '/v2/acme/app?ns=alias.test', echo: 'alias.test' },
  'prefix and ns': { base: '/v2/two.test/acme/app?ns=two.test', echo: 'two.test' },
})

test('an image is pulled by host, prefix and ns alike, through one cache, and OCI-Namespace is echoed', async () => {
  await using one = await startScriptedRegistry()
  await using two = await startScriptedRegistry()
  const image = tinyImage({ seed: 'routed', repository: 'acme/app', tag: '1' })
  two.load(image)
  await using gateway = await startTestGateway({
    upstreams: {
      'one.test': `url: ${one.url}`,
      'two.test': `url: ${two.url}\naliases: [alias.test]\nroutes: { hosts: [two.mirror.test], prefix: second }`,
    },
    default: 'one.test',
  })
  for (const [way, { base, options, echo }] of Object.entries(ways(gateway.port))) {
    const [path = '', query] = base.split('?')
    const url = (rest: string): string => `${gateway.url}${path}/${rest}${query === undefined ? '' : `?${query}`}`
    const manifest = await ask(url('manifests/1'), options)
    assert.deepEqual([manifest.status, manifest.headers['oci-namespace']], [200, echo], way)
    for (const { digest, content } of image.blobs) {
      assert.ok((await ask(url(`blobs/${digest}`), options)).body.equals(bytesOf(content)), way)
    }
    assert.equal((await ask(url('tags/list'), options)).status, 200, way)
    assert.equal((await ask(url(`referrers/${image.root.digest}`), options)).status, 200, way)
  }
  assert.equal(one.acceptedConnections, 0)
  assert.equal(two.count({ kind: 'manifest', status: 200 }), 1)
})

test('an upstream’s own port serves it without a name', async () => {
  await using registry = await startScriptedRegistry()
  registry.load(tinyImage({ seed: 'port', repository: 'acme/app', tag: '1' }))
  await using gateway = await startTestGateway({
    upstreams: { 'one.test': `url: ${registry.url}` },
    main: [
      'listen: [{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0, default: one.test }]',
      'admin: { address: 127.0.0.1:0 }',
      'keep: { free: 0% }',
    ].join('\n'),
  })
  const [nameless, named] = gateway.ports
  const status = async (port: number | undefined, path: string): Promise<number> =>
    (await ask(`http://127.0.0.1:${port}${path}`)).status
  assert.equal(await status(named, '/v2/acme/app/manifests/1'), 200)
  assert.equal(await status(nameless, '/v2/acme/app/manifests/1'), 404)
  assert.equal(await status(nameless, '/v2/one.test/acme/app/manifests/1'), 200)
})

test('what is not declared is 404 with an OCI body, and no connection is made to anybody', async () => {
  await using registry = await startScriptedRegistry()
  await using bystander = await startScriptedRegistry()
  await using gateway = await startTestGateway({ upstreams: { 'one.test': `url: ${registry.url}` } })
  const refused: readonly [path: string, status: number][] = [
    ['/v2/acme/app/manifests/1', 404],
    ['/v2/other.test/acme/app/manifests/1', 404],
    [`/v2/acme/app/manifests/1?ns=${bystander.host}`, 404],
    ['/v2/acme/app/manifests/1?ns=169.254.169.254', 404],
    ['/v2/acme/app/blobs/sha256:short?ns=localhost', 404],
    ['/v2/one.test/acme/app/manifests/1?ns=other.test', 404],
  ]
  for (const [path, status] of refused) {
    const answer = await ask(gateway.url + path)
    assert.equal(answer.status, status, path)
    assert.match(answer.body.toString(), /^\{"errors":\[\{"code":"NAME_UNKNOWN"/, path)
    assert.equal(answer.headers['content-type'], 'application/json')
  }
  assert.equal(registry.acceptedConnections + bystander.acceptedConnections, 0)
})

test('a write is 405 everywhere, malformed names and digests 400, and none of it reaches the upstream', async () => {
  await using registry = await startScriptedRegistry()
  await using gateway = await startTestGateway({ upstreams: { origin: `url: ${registry.url}` }, default: 'origin' })
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'] as const) {
    const answer = await ask(`${gateway.url}/v2/acme/app/manifests/1`, { method })
    assert.deepEqual([answer.status, answer.headers['allow']], [405, 'GET, HEAD'])
  }
  const bad: readonly [path: string, code: string][] = [
    ['Acme/App/manifests/1', 'NAME_INVALID'],
    ['acme/app/blobs/sha256:short', 'DIGEST_INVALID'],
    [`acme/app/blobs/sha256:${'A'.repeat(64)}`, 'DIGEST_INVALID'],
    [`acme/app/manifests/sha256:${'0'.repeat(65)}`, 'DIGEST_INVALID'],
  ]
  for (const [path, code] of bad) {
    const answer = await ask(`${gateway.url}/v2/${path}`)
    assert.deepEqual([answer.status, answer.body.includes(code)], [400, true], path)
  }
  assert.equal(registry.acceptedConnections, 0)
})
