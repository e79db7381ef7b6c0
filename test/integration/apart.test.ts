/** A digest is an address, never a right: bytes that are here are served only where the upstream said they may be. */
import assert from 'node:assert/strict'
import { access, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask, type AskOptions } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bytesOf, imageManifest, seededBlob, tinyImage, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const ACCOUNT = { name: 'user', password: 'pass', pulls: ['acme/secret'] }
const OTHER = { name: 'other', password: 'word', pulls: ['acme/open'] }
const AUTH = [
  'access: shared',
  'auth:',
  "  - { username: user, password: pass, repositories: ['acme/secret'] }",
  "  - { username: other, password: word, repositories: ['acme/open'] }",
  'fill: { complete: never }',
].join('\n')

/** `acme/secret` and `acme/open` of one registry, each with a credential of its own; the blob is in the secret one. */
async function startSecret(size = 600 * KiB): Promise<GatewayPair & { readonly blob: Blob }> {
  const pair = await startPair({
    registry: { auth: { scheme: 'basic', accounts: [ACCOUNT, OTHER] } },
    upstream: AUTH,
  })
  const blob = seededBlob('secret', size)
  pair.registry.repository('acme/secret').add(blob)
  pair.registry.repository('acme/open').add(seededBlob('open', 10))
  return { ...pair, blob }
}

const WAYS: Readonly<Record<string, AskOptions>> = {
  GET: {},
  HEAD: { method: 'HEAD' },
  'a range': { headers: { range: 'bytes=0-9' } },
  'a far range': { headers: { range: 'bytes=500000-' } },
  'two ranges': { headers: { range: 'bytes=0-9,20-29' } },
}

async function isLinked({ gateway }: GatewayPair, repository: string, { digest }: Blob): Promise<boolean> {
  const hex = digest.slice('sha256:'.length)
  const link = `origin/docker/registry/v2/repositories/${repository}/_layers/sha256/${hex}/link`
  return access(join(gateway.data, link)).then(
    () => true,
    () => false,
  )
}

async function assertRefused(pair: GatewayPair & { readonly blob: Blob }, when: string): Promise<void> {
  const ways: typeof WAYS = { ...WAYS, 'If-None-Match': { headers: { 'if-none-match': `"${pair.blob.digest}"` } } }
  for (const [way, options] of Object.entries(ways)) {
    const answer = await pair.get(`acme/open/blobs/${pair.blob.digest}`, options)
    assert.equal(answer.status, 404, `${way}, ${when}`)
    if (options.method !== 'HEAD') assert.match(answer.body.toString(), /BLOB_UNKNOWN/)
  }
  assert.equal(await isLinked(pair, 'acme/open', pair.blob), false)
}

test('a blob of a private repository is 404 through another one, cold, filling and held, in every way of asking', async () => {
  await using pair = await startSecret()
  const path = `acme/secret/blobs/${pair.blob.digest}`
  await assertRefused(pair, 'cold')
  const half = Promise.withResolvers<void>()
  pair.registry.script({ kind: 'blob', method: 'GET', repository: 'acme/secret' }, fault.stall(300 * KiB, half.promise))
  const pulling = pair.get(path)
  await pair.registry.arrived({ kind: 'blob', repository: 'acme/secret' })
  await assertRefused(pair, 'filling')
  half.resolve()
  assert.ok((await pulling).body.equals(bytesOf(pair.blob.content)))
  await assertRefused(pair, 'held')
  assert.equal(await isLinked(pair, 'acme/secret', pair.blob), true)
  assert.equal((await pair.get(path)).headers['cache-status'], 'entrepot; hit')
})

test('a manifest that names a blob of another repository is no proof where credentials differ', async () => {
  await using pair = await startSecret(10 * KiB)
  const { blob, registry } = pair
  const config = seededBlob('config', 100, { mediaType: 'application/vnd.oci.image.config.v1+json' })
  const image = imageManifest(config, [blob])
  registry.repository('acme/open').add(config).tag('1', image)
  assert.equal((await pair.get('acme/open/manifests/1')).status, 200)
  assert.equal((await pair.get(`acme/secret/blobs/${blob.digest}`)).status, 200)
  await assertRefused(pair, 'held and named')
})

test('a manifest of a private repository is 404 through another one', async () => {
  await using pair = await startSecret()
  const image = tinyImage({ seed: 'm', repository: 'acme/secret', tag: '1' })
  pair.registry.load(image)
  assert.equal((await pair.get('acme/secret/manifests/1')).status, 200)
  for (const method of ['GET', 'HEAD'] as const) {
    assert.equal((await pair.get(`acme/open/manifests/${image.root.digest}`, { method })).status, 404)
  }
})

test('who asks where it is refused spoils nothing for who asks where it is allowed, at the same moment', async () => {
  await using pair = await startSecret()
  pair.registry.scriptAlways({ kind: 'blob' }, fault.delay(50))
  const wrong = pair.get(`acme/open/blobs/${pair.blob.digest}`)
  await pair.registry.arrived({ kind: 'blob', repository: 'acme/open' })
  const rights = await Promise.all(Array.from({ length: 5 }, () => pair.get(`acme/secret/blobs/${pair.blob.digest}`)))
  assert.equal((await wrong).status, 404)
  for (const right of rights) assert.ok(right.isComplete && right.body.equals(bytesOf(pair.blob.content)))
})

test('a repository that the upstream vouches for reads what another one brought, and is linked', async () => {
  await using pair = await startSecret()
  const { blob, registry } = pair
  registry.repository('acme/open').add(blob)
  assert.equal((await pair.get(`acme/secret/blobs/${blob.digest}`)).status, 200)
  assert.ok((await pair.get(`acme/open/blobs/${blob.digest}`)).body.equals(bytesOf(blob.content)))
  assert.equal(registry.transfers(blob.digest).length, 1)
  assert.equal(await isLinked(pair, 'acme/open', blob), true)
})

test('two upstreams with the same digest share no byte', async () => {
  await using one = await startScriptedRegistry()
  await using two = await startScriptedRegistry()
  const blob = seededBlob('same', 10 * KiB)
  one.repository('acme/app').add(blob)
  two.repository('acme/app')
  await using gateway = await startTestGateway({
    upstreams: { 'one.test': `url: ${one.url}`, 'two.test': `url: ${two.url}` },
  })
  const status = async (name: string): Promise<number> =>
    (await ask(`${gateway.url}/v2/${name}/acme/app/blobs/${blob.digest}`)).status
  assert.equal(await status('one.test'), 200)
  assert.equal(await status('two.test'), 404)
  two.repository('acme/other').add(blob)
  assert.equal((await ask(`${gateway.url}/v2/two.test/acme/other/blobs/${blob.digest}`)).status, 200)
  assert.equal(two.transfers(blob.digest).length, 1)
})

test('no credential, token or signed query leaves for a log line, a metric, a client or another upstream', async () => {
  const canary = { user: 'canary-user-7f3a', password: 'canary-password-91bc' }
  const basic = Buffer.from(`${canary.user}:${canary.password}`).toString('base64')
  const account = { name: canary.user, password: canary.password, pulls: ['**'] }
  await using pair = await startPair({
    env: { CANARY: canary.password },
    registry: { auth: { scheme: 'basic', accounts: [account] }, cdn: { isSingleUse: true } },
    upstream: [
      'access: shared',
      `auth: { username: ${canary.user}, password: 'env:CANARY' }`,
      'network: { allowPrivate: [127.0.0.0/8] }',
    ].join('\n'),
  })
  const { registry, gateway } = pair
  const image = tinyImage({ seed: 'canary', repository: 'acme/app', tag: '1', layerBytes: 300 * KiB })
  registry.load(image)
  registry.cdn?.script({}, fault.reset(1000), fault.status(403), fault.status(500))
  const answers = [
    await pair.get('acme/app/manifests/1'),
    ...(await Promise.all(
      image.blobs.map(({ digest }) => pair.get(`acme/app/blobs/${digest}`).catch(() => undefined)),
    )),
    await pair.get('acme/app/manifests/missing'),
    await pair.get('acme/app/tags/list'),
  ]
  await registry.close()
  answers.push(await pair.get('acme/app/manifests/other'))
  const metrics = await ask(`${gateway.adminUrl}/metrics`)
  const signatures = registry.cdn?.requests.map(({ query }) => query.get('X-Signature') ?? '') ?? []
  assert.ok(signatures.length > 0)
  const heads = answers.map(
    (answer) => JSON.stringify(answer?.headers) + String(answer?.status === 200 ? '' : answer?.body),
  )
  const said = [JSON.stringify(gateway.events), metrics.body.toString(), ...heads].join('\n')
  for (const secret of [canary.password, basic, ...signatures]) assert.ok(!said.includes(secret), `${secret} was told`)
  assert.ok(registry.cdn?.requests.every(({ headers }) => headers['authorization'] === undefined))
})

test('a password that is read while we run, repeated by whoever is asked, is in no line of the log', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'password')
  await writeFile(path, 'wrong')
  const password = 'canary-second-77ab'
  const account = { name: 'canary', password, pulls: ['**'] }
  await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts: [account] } })
  const image = tinyImage({ seed: 'rotated', repository: 'acme/app', tag: '1' })
  registry.load(image)
  registry.repository('acme/app').isPrivate = true
  await using gateway = await startTestGateway({
    upstreams: {
      origin: `url: ${registry.url}\naccess: shared\nauth: { username: canary, password: 'file:${path}' }`,
    },
    default: 'origin',
  })
  const url = `${gateway.url}/v2/acme/app/manifests`
  assert.equal((await ask(`${url}/1`)).status, 503)
  await writeFile(path, password)
  assert.equal((await ask(`${url}/1`)).status, 200)
  // What is asked for is repeated in the reason of a failure: here it is the password itself.
  assert.equal((await ask(`${url}/${password}`)).status, 404)
  await until('it is logged', () => gateway.events.filter(({ event }) => event === 'request.done').length === 3)
  const reasons = gateway.events.map(({ reason }) => reason).join('\n')
  assert.ok(reasons.includes('[redacted]') && !reasons.includes(password), reasons)
})

test('tokens and credentials of one upstream are never shown to another, and a client’s own to none', async () => {
  const account = { name: 'canary', password: 'canary-password', pulls: ['**'] }
  await using secret = await startScriptedRegistry({ auth: { scheme: 'basic', accounts: [account] } })
  await using open = await startScriptedRegistry()
  const image = tinyImage({ seed: 'two', repository: 'acme/app', tag: '1' })
  secret.load(image)
  open.load(image)
  await using gateway = await startTestGateway({
    upstreams: {
      'secret.test': `url: ${secret.url}\naccess: shared\nauth: { username: canary, password: canary-password }`,
      'open.test': `url: ${open.url}`,
    },
  })
  const headers = { authorization: 'Basic Y2xpZW50OnNlY3JldA==' }
  for (const name of ['secret.test', 'open.test']) {
    assert.equal((await ask(`${gateway.url}/v2/${name}/acme/app/manifests/1`, { headers })).status, 200, name)
  }
  await until('both were asked', () => secret.requests.length > 0 && open.requests.length > 0)
  assert.ok(open.requests.every((request) => request.headers['authorization'] === undefined))
  assert.ok(secret.requests.every((request) => request.headers['authorization'] !== headers.authorization))
})
