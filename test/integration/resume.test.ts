/** A cut is resumed by Range and clients see a pause; what cannot be right never looks complete and is never kept. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { test } from 'node:test'
import { fault, type Fault } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { bytesOf, imageManifest, layerOf, seededBlob, SeededRandom, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB
const SEED = process.env['SEED'] ?? '1'
const BLOB = { kind: 'blob', method: 'GET' } as const

/** A blob of an image that was asked for, so that its length is known; or one that nobody named. */
async function offer({ registry, get }: GatewayPair, blob: Blob, isNamed: boolean): Promise<string> {
  const config = seededBlob('config', 100, { mediaType: 'application/vnd.oci.image.config.v1+json' })
  const image = imageManifest(config, [{ ...blob, mediaType: layerOf('x').mediaType }])
  registry.repository('acme/app').add(config, blob).tag(blob.digest.slice(7, 20), image)
  if (isNamed) assert.equal((await get(`acme/app/manifests/${image.digest}`)).status, 200)
  return `acme/app/blobs/${blob.digest}`
}

function start(): Promise<GatewayPair> {
  return startPair({ upstream: 'fill: { complete: never }' })
}

/** Nothing of a body on its way in is left. */
async function dropped({ gateway }: GatewayPair): Promise<void> {
  await until('the body is dropped', async () => {
    const names = await readdir(gateway.data, { recursive: true })
    return !names.some((name) => /incoming.*sha256-/.test(name))
  })
}

test('cuts at random places, by FIN and RST, are resumed where they were, and no byte is fetched twice', async () => {
  const random = new SeededRandom(SEED)
  for (const isNamed of [true, false]) {
    await using pair = await start()
    const blob = seededBlob(`cuts ${isNamed}`, 2 * MiB)
    const path = await offer(pair, blob, isNamed)
    const cuts = Array.from({ length: 6 }, (_, index) => {
      const after = random.between(1, 400 * KiB)
      return index % 2 === 0 ? fault.cut(after) : fault.reset(after)
    })
    pair.registry.script(BLOB, ...cuts)
    const answer = await pair.get(path)
    assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)), `seed ${SEED}`)
    assert.equal(pair.registry.transfers(blob.digest).length, 7)
    assert.ok(pair.registry.trafficOf(blob.digest) <= 1.3 * blob.content.size)
    assert.equal(pair.logged('fill.committed'), 1)
    assert.equal((await pair.get(path)).headers['cache-status'], 'entrepot; hit')
  }
})

test('a body without a length is resumed, too, whether it is chunked or ends with the connection', async () => {
  for (const framing of [fault.chunked(), fault.closeDelimited()]) {
    for (const isNamed of [true, false]) {
      // A body that only the end of the connection ends cannot be told from a cut one while nobody knows its length.
      if (framing.kind === 'closeDelimited' && !isNamed) continue
      await using pair = await start()
      const blob = seededBlob(`framing ${framing.kind}`, MiB)
      const path = await offer(pair, blob, isNamed)
      pair.registry.script(BLOB, [framing, fault.cut(300 * KiB)], [framing])
      const answer = await pair.get(path)
      assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)), `${framing.kind} ${isNamed}`)
      assert.equal(answer.headers['content-length'], String(blob.content.size))
    }
  }
})

test('an upstream that sends the whole again when asked to resume is read from its front', async () => {
  await using pair = await start()
  const blob = seededBlob('again', MiB)
  const path = await offer(pair, blob, true)
  pair.registry.script(BLOB, fault.cut(500 * KiB), [fault.ignoreRange(), fault.cut(700 * KiB)], fault.ignoreRange())
  const answer = await pair.get(path)
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)))
})

test('an upstream that always ends at the same place, without ranges, is given up', async () => {
  await using pair = await start()
  const blob = seededBlob('never', MiB)
  const path = await offer(pair, blob, true)
  pair.registry.scriptAlways(BLOB, fault.ignoreRange(), fault.cut(400 * KiB))
  const answer = await pair.get(path)
  assert.equal(answer.isComplete, false)
  assert.ok(pair.registry.transfers(blob.digest).length < 25)
})

test('429 in the middle is waited out', async () => {
  await using pair = await start()
  const blob = seededBlob('slow down', MiB)
  const path = await offer(pair, blob, true)
  pair.registry.script(BLOB, fault.cut(500 * KiB), fault.tooManyRequests(1))
  const answer = await pair.get(path)
  assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)))
})

const WRONG: Readonly<Record<string, readonly Fault[]>> = {
  'another total': [fault.contentRange(`bytes ${500 * KiB}-${MiB}/${MiB + 1}`)],
  'another start': [fault.contentRange(`bytes 0-${MiB - 500 * KiB - 1}/${MiB}`)],
  'no Content-Range': [fault.contentRange(undefined)],
}

test('a resume that starts elsewhere or tells another length ends the pull, and the next one is clean', async () => {
  for (const [name, faults] of Object.entries(WRONG)) {
    await using pair = await start()
    const blob = seededBlob(`wrong ${name}`, MiB)
    const path = await offer(pair, blob, true)
    pair.registry.script(BLOB, fault.cut(500 * KiB), faults)
    const answer = await pair.get(path)
    assert.equal(answer.isComplete, false, name)
    assert.ok(answer.body.equals(bytesOf(blob.content).subarray(0, answer.body.length)))
    await dropped(pair)
    assert.ok((await pair.get(path)).body.equals(bytesOf(blob.content)), name)
  }
})

const LYING: Readonly<Record<string, readonly Fault[]>> = {
  'first byte flipped': [fault.corrupt(0)],
  'a byte in the middle flipped': [fault.corrupt(300 * KiB)],
  'last byte flipped': [fault.corrupt(-1)],
  'longer by 10': [fault.resize(10)],
  'shorter by 10': [fault.resize(-10)],
  'more bytes than announced': [fault.lieLength(-10)],
  encoded: [fault.gzip()],
  'nothing at all': [fault.status(200, { 'Content-Length': '0' })],
  'shorter, chunked': [fault.chunked(), fault.resize(-10)],
}

test('no client gets a complete body of wrong bytes, nothing is kept, and the next pull is clean', async () => {
  for (const isNamed of [true, false]) {
    await using pair = await start()
    for (const [name, faults] of Object.entries(LYING)) {
      const blob = seededBlob(`lie ${name}`, 600 * KiB)
      const path = await offer(pair, blob, isNamed)
      pair.registry.script({ ...BLOB, reference: blob.digest }, faults)
      // A connection that is reset right behind the head may not even show that.
      const answer = await pair.get(path).catch(() => undefined)
      const looksComplete = answer?.status === 200 && answer.isComplete
      const isRight = answer?.body.equals(bytesOf(blob.content))
      assert.ok(!looksComplete || isRight, `${name}, named ${isNamed}: ${answer?.status} ${answer?.body.length}`)
      if (answer !== undefined && answer.status !== 200) assert.equal(answer.status, 502, name)
      await dropped(pair)
      const clean = await pair.get(path)
      assert.ok(clean.isComplete && clean.body.equals(bytesOf(blob.content)), `${name}, named ${isNamed}`)
    }
    assert.equal(pair.logged('defect.caught'), 0)
  }
})

test('small wrong blobs are 502 before a byte leaves', async () => {
  await using pair = await start()
  const blob = seededBlob('small', 10 * KiB)
  const path = await offer(pair, blob, true)
  pair.registry.script(BLOB, fault.corrupt(5))
  assert.equal((await pair.get(path)).status, 502)
  assert.equal((await pair.get(path)).status, 200)
})

test('the empty blob is served, and no other blob is ever empty', async () => {
  await using pair = await start()
  const empty = seededBlob('empty', 0)
  const full = seededBlob('full', 10 * KiB)
  const [emptyPath, fullPath] = [await offer(pair, empty, false), await offer(pair, full, false)]
  for (const method of ['HEAD', 'GET', 'GET'] as const) {
    const answer = await pair.get(emptyPath, { method })
    assert.deepEqual([answer.status, answer.headers['content-length']], [200, '0'], method)
  }
  pair.registry.script({ reference: full.digest }, fault.status(200, { 'Content-Length': '0' }))
  assert.equal((await pair.get(fullPath)).status, 502)
  pair.registry.script({ reference: full.digest, method: 'HEAD' }, fault.header('Content-Length', '0'))
  assert.equal((await pair.get(fullPath, { method: 'HEAD' })).headers['content-length'], String(10 * KiB))
})

test('a large blob of an upstream that ignores ranges, or stumbles over several, comes over one connection', async () => {
  const trouble: Readonly<Record<string, Fault>> = {
    'ignores ranges': fault.ignoreRange(),
    'another total': fault.contentRange('bytes 1048576-2097151/9999999'),
    '429': fault.tooManyRequests(),
  }
  for (const [name, failing] of Object.entries(trouble)) {
    await using pair = await startPair({ upstream: 'fill: { complete: never, from: 4MiB }' })
    const blob = seededBlob(`large ${name}`, 20 * MiB)
    const path = await offer(pair, blob, true)
    const isLate = {
      ...BLOB,
      where: ({ range }: { readonly range: string | undefined }) => !range?.startsWith('bytes=0-'),
    }
    if (name === 'ignores ranges') pair.registry.scriptAlways(BLOB, failing)
    else pair.registry.script(isLate, failing)
    const answer = await pair.get(path)
    assert.ok(answer.isComplete && answer.body.equals(bytesOf(blob.content)), name)
  }
})
