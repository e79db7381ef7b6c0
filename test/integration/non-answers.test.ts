/** What is no answer of the registry never replaces what is held, and is never told as "gone". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault, type Fault } from '../support/fault-script.ts'
import { startPair, type GatewayPair } from '../support/gateway-pair.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startTokenServer } from '../support/scripted-token-server.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { tinyImage } from '../support/tiny-image.ts'

const image = tinyImage({ seed: 'held', repository: 'acme/app', tag: '1' })
const TAG = 'acme/app/manifests/1'

async function agedPair(): Promise<GatewayPair & { readonly clock: ManualClock }> {
  const clock = new ManualClock()
  const pair = await startPair({ clock, upstream: 'tags: { maxWait: 1500ms }' })
  pair.registry.load(image)
  assert.equal((await pair.get(TAG)).status, 200)
  clock.advance(120_000)
  return { ...pair, clock }
}

const LOGIN = '<!doctype html><title>log in</title>'
const FAULTS: Readonly<Record<string, { readonly fault: Fault; readonly cold: number; readonly code: string }>> = {
  'status 500': { fault: fault.status(500), cold: 503, code: 'UPSTREAM_ERROR' },
  'status 503': { fault: fault.status(503), cold: 503, code: 'UPSTREAM_ERROR' },
  'status 429': { fault: fault.tooManyRequests(30), cold: 429, code: 'UPSTREAM_THROTTLED' },
  'an HTML page with 200': { fault: fault.html(), cold: 502, code: 'UPSTREAM_INVALID' },
  'an HTML page with 404': { fault: fault.html(LOGIN, 404), cold: 503, code: 'UPSTREAM_ERROR' },
  'an HTML page with 403': { fault: fault.html(LOGIN, 403), cold: 503, code: 'UPSTREAM_ERROR' },
  'a reset connection': { fault: fault.reset(), cold: 503, code: 'UPSTREAM_UNREACHABLE' },
  'a closed connection': { fault: fault.cut(), cold: 503, code: 'UPSTREAM_UNREACHABLE' },
  garbage: { fault: fault.garbage(), cold: 502, code: 'UPSTREAM_INVALID' },
}

test('each non-answer serves the held tag stale, and a cold one as an error that is no 404', async () => {
  for (const [name, { fault: failing, cold, code }] of Object.entries(FAULTS)) {
    await using pair = await agedPair()
    pair.registry.scriptAlways({ kind: 'manifest' }, failing)
    const held = await pair.get(TAG)
    assert.deepEqual([held.status, held.headers['cache-status']], [200, 'entrepot; hit; detail=stale'], name)
    assert.ok(held.body.equals(Buffer.from(image.root.bytes)))
    assert.equal(pair.logged('tag.served_stale', { code }), 1, name)
    const missing = await pair.get('acme/app/manifests/other')
    assert.equal(missing.status, cold, name)
    if (cold !== 502) assert.ok(Number(missing.headers['retry-after']) >= 1)
    assert.equal(pair.logged('tag.gone') + pair.logged('defect.caught'), 0, name)
  }
})

test('an upstream that is refused, silent, or away serves the held tag stale', async () => {
  await using pair = await agedPair()
  pair.registry.dropConnections()
  pair.registry.acceptMode = 'hold'
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit; detail=stale')
  await pair.registry.close()
  assert.equal((await pair.get(TAG)).status, 200)
})

test('a token server that is down, refuses or answers rubbish serves the held tag stale', async () => {
  await using tokens = await startTokenServer({ anonymousPulls: ['**'], lifetimeSeconds: 60 })
  const clock = new ManualClock()
  await using pair = await startPair({
    clock,
    registry: { auth: tokens.auth(), publicNeedsToken: true },
    upstream: `network: { realms: ['${tokens.host}'], allowPrivate: [127.0.0.0/8] }`,
  })
  pair.registry.load(image)
  assert.equal((await pair.get(TAG)).status, 200)
  for (const failing of [fault.status(500), fault.html(), fault.status(200, {}, '{}')]) {
    tokens.tokens.clear()
    clock.advance(120_000)
    const script = tokens.scriptAlways({}, failing)
    assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit; detail=stale')
    script.stop()
  }
  tokens.tokens.clear()
  clock.advance(120_000)
  await tokens.close()
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit; detail=stale')
  assert.equal((await pair.get('acme/app/manifests/other')).status, 503)
})

test('a denial of a held tag serves stale, of a cold one is 404 and never a challenge', async () => {
  await using pair = await agedPair()
  const denied = '{"errors":[{"code":"DENIED","message":"no"}]}'
  pair.registry.scriptAlways(
    { kind: 'manifest' },
    fault.status(403, { 'Content-Type': 'application/json', 'WWW-Authenticate': 'Basic realm="x"' }, denied),
  )
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit; detail=stale')
  const cold = await pair.get('acme/app/manifests/other')
  assert.deepEqual([cold.status, cold.headers['www-authenticate']], [404, undefined])
})

test('an offline upstream is never called: what is held is a hit, the rest 503', async () => {
  await using pair = await startPair()
  const { registry } = pair
  registry.load(image)
  const [config] = image.blobs
  await pair.get(TAG)
  await pair.get(`acme/app/blobs/${config?.digest}`)
  await pair.gateway.stop()
  const before = registry.acceptedConnections
  const upstreams = { origin: `url: ${registry.url}\noffline: true` }
  await using offline = await startTestGateway({ upstreams, default: 'origin', data: pair.gateway.data })
  const status = async (path: string): Promise<number> => (await ask(`${offline.url}/v2/acme/app/${path}`)).status
  assert.equal(await status('manifests/1'), 200)
  assert.equal(await status(`blobs/${config?.digest}`), 200)
  assert.equal(await status(`blobs/${image.blobs[1]?.digest}`), 503)
  assert.equal(await status('manifests/other'), 503)
  assert.equal(await status('tags/list'), 200)
  assert.equal(registry.acceptedConnections, before)
})

test('a 404 is repeated from memory for a while and says so; it is no failed fill', async () => {
  await using pair = await startPair()
  pair.registry.load(tinyImage({ seed: 'negative', repository: 'acme/app', tag: '1' }))
  await pair.get('acme/app/manifests/1')
  for (const path of [`acme/app/blobs/sha256:${'0'.repeat(64)}`, 'acme/app/manifests/none']) {
    const [first, again] = [await pair.get(path), await pair.get(path)]
    assert.deepEqual([first.status, again.status], [404, 404], path)
    assert.equal(first.headers['cache-status'], undefined)
    assert.equal(again.headers['cache-status'], 'entrepot; hit; detail=negative')
  }
  assert.equal(pair.logged('fill.failed'), 0)
  assert.equal(pair.logged('request.done', { outcome: 'negative' }), 2)
})
