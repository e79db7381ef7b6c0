/**
 * Row 31: the upstream denies a repository. A right counts as revoked only when it is denied twice, a minute apart, by a
 * registry, while the same credential works elsewhere; bytes stay. Everything else serves what is held.
 */
import assert from 'node:assert/strict'
import { access, cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startTokenServer, type ScriptedTokenServer } from '../support/scripted-token-server.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { tinyImage } from '../support/tiny-image.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const app = tinyImage({ seed: 'app', repository: 'acme/app', tag: '1' })
const other = tinyImage({ seed: 'other', repository: 'acme/other', tag: '1' })
const TAG = 'acme/app/manifests/1'
const BY_DIGEST = `acme/app/manifests/${app.root.digest}`
const LAYER = `acme/app/blobs/${app.blobs[1]?.digest}`
const DENIED = fault.status(
  403,
  { 'Content-Type': 'application/json' },
  '{"errors":[{"code":"DENIED","message":"requested access is denied"}]}',
)

interface Site extends GatewayPair {
  readonly clock: ManualClock
  readonly tokens: ScriptedTokenServer
  /** What the account may pull; a test takes names out. */
  readonly pulls: string[]
  readonly accounts: { readonly name: string; readonly password: string; readonly pulls: readonly string[] }[]
}

function upstreamOf({ host }: ScriptedTokenServer, more = ''): string {
  return [
    'access: shared',
    'auth: { username: bob, password: secret }',
    `network: { realms: ['${host}'], allowPrivate: [127.0.0.0/8] }`,
    'fill: { complete: never }',
    more,
  ].join('\n')
}

/** A registry with tokens, two private repositories, both pulled whole once, two minutes ago. */
async function startSite(more = ''): Promise<Site> {
  const pulls = ['acme/app', 'acme/other']
  const accounts = [{ name: 'bob', password: 'secret', pulls }]
  const tokens = await startTokenServer({ accounts })
  const clock = new ManualClock()
  const pair = await startPair({ clock, registry: { auth: tokens.auth() }, upstream: upstreamOf(tokens, more) })
  pair.registry.load(app, other)
  assert.equal((await pair.get('acme/other/manifests/1')).status, 200)
  for (const path of [TAG, LAYER]) assert.equal((await pair.get(path)).status, 200, path)
  clock.advance(2 * MINUTE)
  const dispose = async (): Promise<void> => {
    await pair[Symbol.asyncDispose]()
    await tokens.close()
  }
  return { ...pair, clock, tokens, pulls, accounts, [Symbol.asyncDispose]: dispose }
}

/** The account loses `acme/app`, and tokens issued before are void. */
function takeBack({ pulls, tokens }: Site): void {
  pulls.splice(pulls.indexOf('acme/app'), 1)
  tokens.tokens.clear()
}

async function assertServed(pair: GatewayPair, when: string): Promise<void> {
  for (const path of [TAG, BY_DIGEST, LAYER]) assert.equal((await pair.get(path)).status, 200, `${path} ${when}`)
}

async function assertGone(get: GatewayPair['get'], when: string): Promise<void> {
  for (const path of [TAG, BY_DIGEST, LAYER]) {
    const { status, headers } = await get(path)
    assert.deepEqual([status, headers['www-authenticate']], [404, undefined], `${path} ${when}`)
  }
}

async function revoke(site: Site): Promise<void> {
  takeBack(site)
  await assertServed(site, 'after the first denial')
  site.clock.advance(MINUTE)
  assert.equal((await site.get(TAG)).status, 404)
  assert.equal(site.logged('repository.revoked', { repository: 'acme/app', manifests: 1 }), 1)
}

function layerFile(data: string): string {
  const hex = String(app.blobs[1]?.digest).slice('sha256:'.length)
  return join(data, `origin/docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data`)
}

test('denied twice, a minute apart, while the credential works elsewhere: 404, links revoked, bytes kept', async () => {
  await using site = await startSite()
  await revoke(site)
  await assertGone(site.get, 'once revoked')
  assert.equal(site.logged('repository.denied', { verdict: 'suspected' }), 1)
  assert.equal((await site.get('acme/other/manifests/1')).status, 200)
  await access(layerFile(site.gateway.data))
})

test('two denials within a minute revoke nothing', async () => {
  await using site = await startSite('tags: { ttl: 0s }')
  takeBack(site)
  for (let asked = 0; asked < 2; asked++) {
    await assertServed(site, `${asked}`)
    site.clock.advance(29_000)
  }
  await assertServed(site, 'after 58 s')
  assert.equal(site.logged('repository.revoked'), 0)
})

test('a right that comes back in between starts the count anew', async () => {
  await using site = await startSite()
  takeBack(site)
  await assertServed(site, 'denied')
  site.pulls.push('acme/app')
  site.clock.advance(2 * MINUTE)
  await assertServed(site, 'allowed again')
  takeBack(site)
  site.clock.advance(2 * MINUTE)
  await assertServed(site, 'denied once more')
  assert.equal(site.logged('repository.denied', { verdict: 'suspected' }), 2)
})

test('what was revoked is served again after the upstream says so, fetching no layer anew', async () => {
  await using site = await startSite()
  await revoke(site)
  await assertGone(site.get, 'once revoked')
  site.pulls.push('acme/app')
  site.tokens.tokens.clear()
  site.clock.advance(MINUTE)
  await assertServed(site, 'allowed again')
  assert.equal(site.registry.transfers(app.blobs[1]?.digest ?? app.root.digest).length, 1)
})

test('an expired credential revokes nothing', async () => {
  await using site = await startSite()
  site.accounts.length = 0
  site.tokens.tokens.clear()
  for (let minute = 0; minute < 5; minute++) {
    await assertServed(site, `in minute ${minute}`)
    site.clock.advance(2 * MINUTE)
  }
  assert.ok(site.logged('tag.served_stale', { code: 'CREDENTIALS_REJECTED' }) > 0)
  assert.equal(site.logged('repository.revoked') + site.logged('repository.denied'), 0)
})

test('a credential that is denied everything is broken: stale, loudly', async () => {
  await using site = await startSite()
  site.pulls.length = 0
  site.tokens.tokens.clear()
  for (let minute = 0; minute < 5; minute++) {
    await assertServed(site, `in minute ${minute}`)
    site.clock.advance(2 * MINUTE)
  }
  assert.ok(site.logged('repository.denied', { verdict: 'unproven' }) >= 3)
  assert.equal(site.logged('repository.revoked'), 0)
})

test('a page with 401 or 403 is no denial, however often it comes', async () => {
  for (const page of [
    fault.html('<title>log in</title>', 403),
    fault.status(401, { 'WWW-Authenticate': 'Negotiate', 'Content-Type': 'text/html' }, '<p>no</p>'),
  ]) {
    await using site = await startSite()
    site.registry.scriptAlways({ kind: 'manifest', repository: 'acme/app' }, page)
    for (let minute = 0; minute < 3; minute++) {
      await assertServed(site, `in minute ${minute}`)
      site.clock.advance(2 * MINUTE)
    }
    assert.equal(site.logged('repository.denied') + site.logged('repository.revoked'), 0)
  }
})

test('a revocation outlives a restart, the loss of the ledger, and a copy of the folder', async () => {
  await using site = await startSite()
  await revoke(site)
  const { data } = site.gateway
  await site.gateway.stop()
  await using folder = await temporaryFolder()
  const copy = join(folder.path, 'copy')
  await cp(data, copy, { recursive: true })
  for (const name of ['', '-wal', '-shm']) await rm(join(copy, `ledger.sqlite${name}`), { force: true })
  const upstreams = { origin: `url: ${site.registry.url}\n${upstreamOf(site.tokens)}` }
  for (const used of [data, copy]) {
    await using again = await startTestGateway({ upstreams, default: 'origin', data: used, clock: site.clock })
    await assertGone((path) => ask(`${again.url}/v2/${path}`), used)
    assert.equal((await ask(`${again.url}/v2/acme/other/manifests/1`)).status, 200)
    await access(layerFile(used))
  }
  // With nobody to ask nothing is told as gone, and nothing revoked is served.
  await site.registry.close()
  await using alone = await startTestGateway({ upstreams, default: 'origin', data: copy, clock: site.clock })
  for (const path of [TAG, BY_DIGEST, LAYER]) assert.equal((await ask(`${alone.url}/v2/${path}`)).status, 503, path)
})

test('a repository read by a credential is confirmed every recheck, also when only its digest is asked', async () => {
  await using site = await startSite()
  const heads = (): number => site.registry.count({ kind: 'manifest', repository: 'acme/app', method: 'HEAD' })
  const before = heads()
  await site.get(BY_DIGEST)
  site.clock.advance(23 * HOUR)
  await site.get(BY_DIGEST)
  assert.equal(heads(), before)
  site.clock.advance(2 * HOUR)
  takeBack(site)
  assert.equal((await site.get(BY_DIGEST)).headers['cache-status'], 'entrepot; hit')
  await until('the first denial', () => site.logged('repository.denied', { verdict: 'suspected' }) === 1)
  assert.equal((await site.get(BY_DIGEST)).status, 200)
  site.clock.advance(MINUTE)
  await site.get(BY_DIGEST)
  await until('the second denial', () => site.logged('repository.revoked') === 1)
  await assertGone(site.get, 'once revoked')
})

test('where we are anonymous a denied repository stays for deniedFor', async () => {
  const clock = new ManualClock()
  await using pair = await startPair({ clock, upstream: 'tags: { deniedFor: 3d }\nfill: { complete: never }' })
  pair.registry.load(app, other)
  for (const path of [TAG, LAYER, 'acme/other/manifests/1']) assert.equal((await pair.get(path)).status, 200)
  pair.registry.scriptAlways({ kind: 'manifest', repository: 'acme/app' }, DENIED)
  pair.registry.scriptAlways({ kind: 'blob', repository: 'acme/app' }, DENIED)
  for (let day = 0; day < 3; day++) {
    clock.advance(2 * MINUTE)
    await assertServed(pair, `on day ${day}`)
    clock.advance(24 * HOUR - 2 * MINUTE)
  }
  assert.equal(pair.logged('repository.denied', { verdict: 'tolerated' }), 2)
  clock.advance(2 * MINUTE)
  await assertGone(pair.get, 'after three days')
  assert.equal(pair.logged('repository.revoked'), 1)
})
