/** By tag: fresh, revalidated, moved, gone; one shared HEAD, and what is held when the answer takes long. */
import assert from 'node:assert/strict'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { tinyImage, tinyIndex } from '../support/tiny-image.ts'

const MINUTE = 60_000
const HEADERS = ['content-type', 'content-length', 'docker-content-digest', 'etag'] as const
const TAG = 'acme/app/manifests/1'
const one = tinyImage({ seed: 'one', repository: 'acme/app', tag: '1' })
const two = tinyIndex({ seed: 'two', repository: 'acme/app', tag: '1' })

async function startAged(upstream = ''): Promise<GatewayPair & { readonly clock: ManualClock }> {
  const clock = new ManualClock()
  const pair = await startPair({ upstream, clock })
  pair.registry.load(one)
  return { ...pair, clock }
}

function calls({ registry }: GatewayPair): readonly [gets: number, heads: number] {
  return [registry.count({ kind: 'manifest', method: 'GET' }), registry.count({ kind: 'manifest', method: 'HEAD' })]
}

test('HEAD has the headers of GET on a miss, a hit and a revalidation, by tag and by digest', async () => {
  await using pair = await startAged()
  const expected = [one.root.mediaType, String(one.root.bytes.length), one.root.digest, `"${one.root.digest}"`]
  const check = async (path: string, status: string): Promise<void> => {
    for (const method of ['HEAD', 'GET'] as const) {
      const answer = await pair.get(path, { method })
      assert.equal(answer.status, 200)
      assert.deepEqual(
        HEADERS.map((name) => answer.headers[name]),
        expected,
        `${method} ${path}`,
      )
      assert.equal(answer.body.length, method === 'GET' ? one.root.bytes.length : 0)
      if (method === 'HEAD') assert.equal(answer.headers['cache-status'], `entrepot; ${status}`)
    }
  }
  await check(TAG, 'fwd=miss')
  await check(TAG, 'hit')
  await check(`acme/app/manifests/${one.root.digest}`, 'hit')
  pair.clock.advance(2 * MINUTE)
  await check(TAG, 'fwd=stale')
  assert.deepEqual(calls(pair), [1, 1])
})

test('six orders of Accept cause one upstream request, with our own list', async () => {
  await using pair = await startAged()
  const types = [one.root.mediaType, two.root.mediaType, 'application/vnd.docker.distribution.manifest.v2+json']
  const orders = types.flatMap((a) => types.filter((b) => b !== a).map((b) => [a, b]))
  assert.equal(orders.length, 6)
  for (const order of orders) assert.equal((await pair.get(TAG, { headers: { accept: order.join(', ') } })).status, 200)
  assert.deepEqual(calls(pair), [1, 0])
  const [asked] = pair.registry.matching({ kind: 'manifest' })
  assert.ok(types.every((type) => asked?.headers['accept']?.includes(type)))
})

test('a tag that moved is served anew once its manifest is here, and the old digest stays', async () => {
  await using pair = await startAged()
  await pair.get(TAG)
  pair.registry.load(two)
  assert.equal((await pair.get(TAG)).headers['docker-content-digest'], one.root.digest)
  pair.clock.advance(2 * MINUTE)
  const moved = await pair.get(TAG)
  assert.equal(moved.headers['docker-content-digest'], two.root.digest)
  assert.equal(moved.headers['content-type'], two.root.mediaType)
  assert.ok(moved.body.equals(Buffer.from(two.root.bytes)))
  assert.equal((await pair.get(`acme/app/manifests/${one.root.digest}`)).headers['cache-status'], 'entrepot; hit')
  assert.equal(pair.logged('tag.moved'), 1)
})

test('a tag that moves to a manifest that was just taken off the disk brings it back', async () => {
  await using pair = await startAged()
  await pair.get(TAG)
  pair.registry.load(two)
  pair.clock.advance(2 * MINUTE)
  await pair.get(TAG)
  const revisions = 'origin/docker/registry/v2/repositories/acme/app/_manifests/revisions/sha256'
  const revision = join(pair.gateway.data, revisions, one.root.digest.slice('sha256:'.length))
  await rm(revision, { recursive: true })
  pair.registry.load(one)
  pair.clock.advance(2 * MINUTE)
  assert.equal((await pair.get(TAG)).headers['docker-content-digest'], one.root.digest)
  assert.equal(await readFile(join(revision, 'link'), 'utf8'), one.root.digest)
  assert.equal(pair.logged('store.failed'), 0)
})

test('a HEAD that names a digest nobody has is settled by GET', async () => {
  await using pair = await startAged()
  await pair.get(TAG)
  pair.registry.load(two)
  pair.clock.advance(2 * MINUTE)
  const gone = `sha256:${'0'.repeat(64)}`
  pair.registry.script({ kind: 'manifest', method: 'HEAD' }, fault.header('Docker-Content-Digest', gone))
  assert.equal((await pair.get(TAG)).headers['docker-content-digest'], two.root.digest)
  assert.equal(pair.logged('tag.gone'), 0)
})

test('a HEAD without a digest is settled by GET', async () => {
  await using pair = await startAged()
  await pair.get(TAG)
  pair.registry.load(two)
  pair.clock.advance(2 * MINUTE)
  pair.registry.script({ kind: 'manifest', method: 'HEAD' }, fault.noDigest())
  assert.equal((await pair.get(TAG)).headers['docker-content-digest'], two.root.digest)
})

test('a slow check gives the stale answer after maxWait and goes on', async () => {
  await using pair = await startAged('tags: { maxWait: 600ms }')
  await pair.get(TAG)
  pair.registry.load(two)
  pair.clock.advance(2 * MINUTE)
  const answer = Promise.withResolvers<void>()
  pair.registry.script({ kind: 'manifest', method: 'HEAD' }, fault.delay(answer.promise))
  const startedAt = performance.now()
  const first = await pair.get(TAG)
  const waited = performance.now() - startedAt
  assert.equal(first.headers['docker-content-digest'], one.root.digest)
  assert.equal(first.headers['cache-status'], 'entrepot; hit; detail=stale')
  assert.ok(waited >= 590, `${waited} ms`)
  // Who comes while the same check still runs does not wait for it again.
  const again = performance.now()
  await pair.get(TAG)
  assert.ok(performance.now() - again < waited)
  answer.resolve()
  await until('the check ends', () => pair.logged('tag.moved') === 1)
  assert.equal((await pair.get(TAG)).headers['docker-content-digest'], two.root.digest)
})

test('a tag older than staleFor waits for the answer, and without one is an error', async () => {
  await using pair = await startAged('tags: { maxWait: 50ms, staleFor: 1h }')
  await pair.get(TAG)
  pair.clock.advance(2 * 60 * MINUTE)
  pair.registry.script({ kind: 'manifest', method: 'HEAD' }, fault.delay(200))
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; fwd=stale')
  pair.clock.advance(2 * 60 * MINUTE)
  await pair.registry.close()
  const failed = await pair.get(TAG)
  assert.deepEqual([failed.status, failed.headers['retry-after']], [503, '5'])
  assert.equal(pair.logged('defect.caught'), 0)
})

test('a tag the upstream deleted is kept for goneFor, then gone; its digest stays', async () => {
  await using pair = await startAged('tags: { goneFor: 1h }')
  await pair.get(TAG)
  pair.registry.repository('acme/app').tags.delete('1')
  pair.clock.advance(2 * MINUTE)
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit; detail=stale')
  const [, heads] = calls(pair)
  await pair.get(TAG)
  assert.equal(calls(pair)[1], heads, 'a 404 is remembered for half a minute')
  pair.clock.advance(61 * MINUTE)
  assert.equal((await pair.get(TAG)).status, 404)
  assert.equal((await pair.get(`acme/app/manifests/${one.root.digest}`)).status, 200)
  assert.ok(pair.logged('tag.gone', { isKept: true }) > 0 && pair.logged('tag.gone', { isKept: false }) === 1)
})

test('with onGone: follow a deleted tag is 404 at once, and stays so when the upstream goes', async () => {
  await using pair = await startAged('tags: { onGone: follow }')
  await pair.get(TAG)
  pair.registry.repository('acme/app').tags.delete('1')
  pair.clock.advance(2 * MINUTE)
  assert.equal((await pair.get(TAG)).status, 404)
  await pair.registry.close()
  assert.equal((await pair.get(TAG)).status, 404)
  pair.clock.advance(MINUTE)
  assert.equal((await pair.get(TAG)).status, 503)
  assert.equal((await pair.get(`acme/app/manifests/${one.root.digest}`)).status, 200)
})

test('a 404 is remembered for half a minute, also when it is asked again and again', async () => {
  await using pair = await startAged()
  const missing = 'acme/app/manifests/later'
  for (let second = 0; second < 29; second += 7) {
    assert.equal((await pair.get(missing)).status, 404)
    pair.clock.advance(7_000)
  }
  assert.deepEqual(calls(pair), [1, 0])
  pair.registry.repository('acme/app').tag('later', one.root)
  assert.equal((await pair.get(missing)).status, 200)
})

test('an immutable tag is asked once', async () => {
  await using pair = await startAged("tags: { immutable: ['1'] }")
  await pair.get(TAG)
  pair.clock.advance(1000 * 60 * MINUTE)
  assert.equal((await pair.get(TAG)).headers['cache-status'], 'entrepot; hit')
  assert.deepEqual(calls(pair), [1, 0])
})

test('a digest never seen under a tag is pulled, kept, and never asked again', async () => {
  await using pair = await startAged()
  const path = `acme/app/manifests/${one.root.digest}`
  assert.equal((await pair.get(path, { method: 'HEAD' })).status, 200)
  await pair.registry.close()
  const held = await pair.get(path)
  assert.ok(held.body.equals(Buffer.from(one.root.bytes)))
  assert.match(String(held.headers['cache-control']), /immutable/)
})

test('If-None-Match is 304 with the digest quoted, bare, weak or in a list, and nothing else is', async () => {
  await using pair = await startAged()
  const { digest } = one.root
  for (const value of [`"${digest}"`, digest, `W/"${digest}"`, `"x", "${digest}"`, '*']) {
    const answer = await pair.get(TAG, { headers: { 'if-none-match': value } })
    assert.deepEqual([answer.status, answer.headers['etag'], answer.body.length], [304, `"${digest}"`, 0], value)
  }
  assert.equal((await pair.get(TAG, { headers: { 'if-none-match': '"sha256:other"' } })).status, 200)
  assert.equal((await ask(`${pair.gateway.url}/v2/${TAG}`)).status, 200)
})

test('a tag that moves to a manifest which came by way of another repository is kept like any other', async () => {
  await using pair = await startAged()
  const { registry, clock } = pair
  registry
    .repository('acme/other')
    .add(...one.manifests, ...two.manifests)
    .tag('1', two.root)
  const [child] = two.manifests
  assert.ok(child)
  registry.repository('acme/app').tag('child', child)
  await pair.get('acme/app/manifests/child')
  await pair.get('acme/other/manifests/1')
  registry.repository('acme/other').tag('1', child)
  clock.advance(2 * MINUTE)
  assert.equal((await pair.get('acme/other/manifests/1')).headers['docker-content-digest'], child.digest)
  assert.equal(pair.logged('store.failed'), 0)
  const folder = join(
    pair.gateway.data,
    'origin/docker/registry/v2/repositories/acme/other/_manifests/tags/1/current/link',
  )
  assert.equal(await readFile(folder, 'utf8'), child.digest)
})
