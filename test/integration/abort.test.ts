/** A fill belongs to the cache: a client that leaves ends its own wait and nothing else. */
import assert from 'node:assert/strict'
import { readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask, askDigest, type Answer } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { bytesOf, seededBlob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB
const BLOB = { kind: 'blob', method: 'GET' } as const

async function offer(
  size: number,
  upstream = '',
): Promise<GatewayPair & { readonly path: string; blob: ReturnType<typeof seededBlob> }> {
  const pair = await startPair({ upstream })
  const blob = seededBlob(`abort ${size}`, size)
  pair.registry.repository('acme/app').add(blob)
  return { ...pair, blob, path: `acme/app/blobs/${blob.digest}` }
}

test('a joiner in the middle gets what is here at once, and there is one transfer', async () => {
  await using pair = await offer(2 * MiB)
  const rest = Promise.withResolvers<void>()
  pair.registry.scriptAlways(BLOB, fault.stall(1 * MiB, rest.promise))
  const first = pair.get(pair.path)
  await pair.registry.arrived(BLOB)
  const joined = await fetch(`${pair.gateway.url}/v2/${pair.path}`)
  assert.equal(joined.headers.get('cache-status'), 'entrepot; fwd=miss; collapsed')
  const chunks: Uint8Array[] = []
  for await (const chunk of joined.body ?? []) {
    // The upstream holds the second half back until the joiner has read of the first.
    rest.resolve()
    chunks.push(chunk)
  }
  assert.ok(Buffer.concat(chunks).equals(bytesOf(pair.blob.content)))
  const answer = await first
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  assert.equal(pair.registry.transfers(pair.blob.digest).length, 1)
})

test('a blob whose only client left with little missing is finished', async () => {
  await using pair = await offer(4 * MiB)
  pair.registry.scriptAlways(BLOB, fault.rate(4 * MiB))
  await ask(`${pair.gateway.url}/v2/${pair.path}`, { leaveAfter: 100 * KiB }).catch(() => undefined)
  await until('the fill is committed', () => pair.logged('fill.committed') === 1)
  assert.equal(pair.registry.transfers(pair.blob.digest).length, 1)
  assert.equal((await pair.get(pair.path)).headers['cache-status'], 'entrepot; hit')
})

test('a leader that leaves takes nothing from 50 followers', async () => {
  await using pair = await offer(2 * MiB)
  pair.registry.scriptAlways(BLOB, fault.rate(4 * MiB), fault.delay(100))
  const url = `${pair.gateway.url}/v2/${pair.path}`
  const leaving = new AbortController()
  const leader = fetch(url, { signal: leaving.signal }).catch(() => undefined)
  await pair.registry.arrived(BLOB)
  const following = Array.from({ length: 50 }, () => askDigest(url))
  leaving.abort()
  await leader
  const followers = await Promise.all(following)
  assert.ok(followers.every(({ digest, isComplete }) => isComplete && digest === pair.blob.digest))
  assert.equal(pair.registry.transfers(pair.blob.digest).length, 1)
})

test('50 clients that leave at once, at any moment, harm no later one', async () => {
  await using pair = await offer(600 * KiB)
  const url = `${pair.gateway.url}/v2/${pair.path}`
  pair.registry.scriptAlways({ kind: 'blob' }, fault.delay(20))
  const gone = Array.from({ length: 50 }, async (_, index) => {
    const leaving = new AbortController()
    setTimeout(() => leaving.abort(), index)
    await fetch(url, { signal: leaving.signal }).catch(() => undefined)
  })
  const stayed = await Promise.all(Array.from({ length: 5 }, () => pair.get(pair.path)))
  await Promise.all(gone)
  for (const answer of stayed) assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  assert.equal(pair.logged('defect.caught') + pair.logged('store.failed'), 0)
})

test('a fill that fails tells all 50 waiters the same, and the next request starts anew', async () => {
  await using pair = await offer(600 * KiB)
  pair.registry.scriptAlways(BLOB, fault.delay(100), fault.status(500))
  const answers = await Promise.all(Array.from({ length: 50 }, () => pair.get(pair.path)))
  assert.ok(answers.every(({ status }) => status === 503))
  // Each with its own request id.
  const said = answers.map(({ body }) => body.toString().replaceAll(/"requestId":"[^"]*"/g, ''))
  assert.equal(new Set(said).size, 1)
  assert.ok(pair.registry.count(BLOB) <= 3)
  pair.registry.clearScripts()
  assert.equal((await pair.get(pair.path)).status, 200)
})

test('ranges that nobody can read, again and again, use up no transfer slots', async () => {
  await using pair = await offer(600 * KiB)
  const statuses = new Set<number>()
  const wrong = async (index: number): Promise<void> => {
    const blob = seededBlob(`slot ${index}`, 100)
    pair.registry.repository('acme/app').add(blob)
    const answer = await pair.get(`acme/app/blobs/${blob.digest}`, { headers: { range: 'bytes=5000-' } })
    statuses.add(answer.status)
  }
  // As many as there are slots.
  await Promise.all(Array.from({ length: 64 }, (_, index) => wrong(index)))
  assert.deepEqual([...statuses], [416])
  const answer: Answer = await pair.get(pair.path)
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
})

test('requests under way end well when the gateway stops', async () => {
  await using pair = await offer(2 * MiB)
  pair.registry.scriptAlways(BLOB, fault.rate(4 * MiB))
  const pulling = pair.get(pair.path)
  await pair.registry.arrived(BLOB)
  await pair.gateway.stop()
  const answer = await pulling
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(pair.blob.content)))
  assert.equal(pair.logged('gateway.stopped', { drained: true }), 1)
})

test(
  'after aborts, failures, ranges and hits no file of a blob stays open',
  { skip: process.platform !== 'linux' && 'only Linux has /proc' },
  async () => {
    await using pair = await offer(600 * KiB)
    const { registry, gateway, blob } = pair
    const openFiles = async (): Promise<number> => {
      const links = (await readdir('/proc/self/fd')).map((name) => readlink(`/proc/self/fd/${name}`).catch(() => ''))
      return (await Promise.all(links)).filter((target) => target.startsWith(join(gateway.data, 'origin'))).length
    }
    registry.script({ kind: 'blob', method: 'GET' }, fault.corrupt(5), fault.status(500), fault.reset(300 * KiB))
    for (let round = 0; round < 6; round++) {
      await pair.get(pair.path).catch(() => undefined)
      await pair.get(pair.path, { leaveAfter: 100 * KiB }).catch(() => undefined)
      await pair.get(pair.path, { headers: { range: 'bytes=500000-' } }).catch(() => undefined)
      await pair.get(pair.path, { method: 'HEAD' })
    }
    assert.ok((await pair.get(pair.path)).body.equals(bytesOf(blob.content)))
    await until('every file is closed', async () => (await openFiles()) === 0)
  },
)
