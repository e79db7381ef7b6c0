/** What is kept and what goes, seen by clients, on the disk, and through the admin API and the commands. */
import assert from 'node:assert/strict'
import { lstatSync, utimesSync, existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '../../src/cli/run.ts'
import { ask, askDigest } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startScriptedRegistry, type ScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway, type TestGateway } from '../support/start-gateway.ts'
import { imageManifest, seededBlob, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB

interface Pulled {
  readonly repository: string
  readonly tag: string
  readonly digest: string
  readonly blobs: readonly Blob[]
}

function load(registry: ScriptedRegistry, repository: string, tag: string, blobs: readonly Blob[]): Pulled {
  const config = seededBlob(`config of ${repository}:${tag}`, KiB)
  const manifest = imageManifest(config, blobs)
  registry
    .repository(repository)
    .add(config, ...blobs)
    .tag(tag, manifest)
  return { repository, tag, digest: manifest.digest, blobs: [config, ...blobs] }
}

async function pull(gateway: TestGateway, { repository, tag, digest, blobs }: Pulled): Promise<void> {
  const base = `${gateway.url}/v2/${repository}`
  const manifest = await ask(`${base}/manifests/${tag}`)
  assert.deepEqual([manifest.status, manifest.headers['docker-content-digest']], [200, digest])
  for (const blob of blobs) {
    const got = await askDigest(`${base}/blobs/${blob.digest}`)
    assert.deepEqual([got.status, got.isComplete, got.digest], [200, true, blob.digest])
  }
}

function start(registry: ScriptedRegistry, keep: string, more: Partial<Parameters<typeof startTestGateway>[0]> = {}) {
  return startTestGateway({
    upstreams: { origin: `url: ${registry.url}\nkeep: { ${keep} }\nfill: { complete: never }` },
    default: 'origin',
    keeping: { imageMinAgeMs: 0, orphanMinAgeMs: 0, startDelayMs: 3_600_000 },
    ...more,
  })
}

function blobFile(gateway: TestGateway, digest: string): string {
  const hex = digest.slice('sha256:'.length)
  return join(gateway.data, 'origin/docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data')
}

const isHeld = (gateway: TestGateway, { digest }: { readonly digest: string }): boolean =>
  existsSync(blobFile(gateway, digest))

/** What any of the calls answers. */
interface Reply {
  readonly error: string
  readonly isDry: boolean
  readonly bytes: number
  readonly orphans: number
  readonly orphanBytes: number
  readonly links: number
  readonly upstreams: readonly unknown[]
  readonly images: readonly {
    readonly repository: string
    readonly tags: readonly string[]
    readonly isPinned: boolean
    readonly usedAt: string
    readonly outcome: string
  }[]
}

async function api(
  gateway: TestGateway,
  method: string,
  path: string,
  body?: object,
): Promise<{ status: number; json: Reply }> {
  const reply = await fetch(gateway.adminUrl + path, {
    method,
    ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  })
  return { status: reply.status, json: (await reply.json()) as Reply }
}

test('before a quota is exceeded the least recently used image goes, its links with it; what is pinned stays', async () => {
  await using registry = await startScriptedRegistry()
  const base = seededBlob('base', 100 * KiB)
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((tag) =>
    load(registry, 'acme/app', tag, [base, seededBlob(tag, 300 * KiB)]),
  )
  assert.ok(a && b && c && d)
  await using gateway = await start(registry, "quota: 1200KiB, pin: ['acme/app:a']")
  for (const image of [a, b, c]) await pull(gateway, image)
  await pull(gateway, b)
  await pull(gateway, d)
  assert.deepEqual(
    [a, b, c, d].map(({ blobs }) => blobs.every((blob) => isHeld(gateway, blob))),
    [true, true, false, true],
  )
  assert.ok(isHeld(gateway, base), 'a layer that others need stays')
  const gone = gateway.events.filter(({ event }) => event === 'image.evicted')
  assert.deepEqual(
    gone.map(({ repository, tags, reason }) => [repository, tags, reason]),
    [['acme/app', 'c', 'quota']],
  )
  const { json } = await api(gateway, 'GET', '/api/images')
  assert.deepEqual(
    new Set(json.images.map(({ tags, isPinned }) => `${tags.join()} ${isPinned}`)),
    new Set(['a true', 'b false', 'd false']),
  )
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
  assert.match(metrics, /entrepot_evicted_images_total\{upstream="origin",reason="quota"\} 1/)
  assert.match(metrics, /entrepot_evicted_bytes_total\{upstream="origin",reason="quota"\} 3\d{5}/)
  assert.match(metrics, /entrepot_store_bytes\{upstream="origin"\} 1\d{6}/)
  await pull(gateway, c)
})

test('a blob larger than the quota, or with nothing that may go, is served through and not stored', async () => {
  await using registry = await startScriptedRegistry()
  const large = load(registry, 'acme/large', '1', [seededBlob('large', 2 * MiB)])
  const small = load(registry, 'acme/small', '1', [seededBlob('small', 600 * KiB)])
  const other = load(registry, 'acme/other', '1', [seededBlob('other', 600 * KiB)])
  await using gateway = await start(registry, "quota: 1MiB, pin: ['acme/small']")
  await pull(gateway, small)
  await pull(gateway, large)
  await pull(gateway, other)
  assert.deepEqual(
    [small, large, other].map(({ blobs }) => blobs.every((blob) => isHeld(gateway, blob))),
    [true, false, false],
  )
})

test('a slow client reads a purged blob to its end; whoever comes next gets it from the upstream again', async () => {
  await using registry = await startScriptedRegistry()
  const image = load(registry, 'acme/app', '1', [seededBlob('slowly read', 8 * MiB)])
  const [, layer] = image.blobs
  assert.ok(layer)
  await using gateway = await start(registry, 'quota: unlimited')
  await pull(gateway, image)
  const url = `${gateway.url}/v2/acme/app/blobs/${layer.digest}`
  const reading = Promise.withResolvers<number>()
  const isPaused = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  request(url, (incoming) => {
    let bytes = 0
    incoming.once('data', () => {
      incoming.pause()
      isPaused.resolve()
      void go.promise.then(() => incoming.resume())
    })
    incoming.on('data', (chunk: Buffer) => (bytes += chunk.length))
    incoming.on('close', () => reading.resolve(incoming.complete ? bytes : -1))
  }).end()
  await isPaused.promise
  const { json } = await api(gateway, 'POST', '/api/purge', { upstream: 'origin', repository: 'acme/app', dry: false })
  assert.equal(json.images[0]?.outcome, 'removed')
  assert.ok(!isHeld(gateway, layer))
  go.resolve()
  assert.equal(await reading.promise, 8 * MiB)
  await pull(gateway, image)
  assert.equal(registry.transfers(layer.digest).length, 2)
})

test('a blob that is being read is not evicted for space', async () => {
  await using registry = await startScriptedRegistry()
  const read = load(registry, 'acme/read', '1', [seededBlob('read', 8 * MiB)])
  const next = load(registry, 'acme/next', '1', [seededBlob('next', 8 * MiB)])
  await using gateway = await start(registry, 'quota: 9MiB')
  await pull(gateway, read)
  const [, layer] = read.blobs
  const socket = request(`${gateway.url}/v2/acme/read/blobs/${layer?.digest}`, (incoming) => void incoming.pause())
  socket.end()
  await new Promise((resolve) => socket.on('response', resolve))
  await pull(gateway, next)
  assert.deepEqual(
    [read, next].map(({ blobs }) => blobs.every((blob) => isHeld(gateway, blob))),
    [true, false],
  )
  socket.destroy()
})

test('a purge while the blob is on its way leaves the pull alone', async () => {
  await using registry = await startScriptedRegistry()
  const image = load(registry, 'acme/app', '1', [seededBlob('on its way', 2 * MiB)])
  await using gateway = await start(registry, 'quota: unlimited')
  registry.scriptAlways({ kind: 'blob' }, fault.rate(4 * MiB))
  const pulling = pull(gateway, image)
  for (let index = 0; index < 5; index++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    await api(gateway, 'POST', '/api/purge', { upstream: 'origin', dry: false })
    await api(gateway, 'POST', '/api/sweep', { upstream: 'origin', dry: false })
  }
  await pulling
})

test('a blob that two repositories share stays until the last of them goes, and leaves no link behind', async () => {
  await using registry = await startScriptedRegistry()
  const shared = seededBlob('shared', 200 * KiB)
  const one = load(registry, 'acme/one', '1', [shared])
  const two = load(registry, 'acme/two', '1', [shared])
  await using gateway = await start(registry, 'quota: unlimited')
  await pull(gateway, one)
  await pull(gateway, two)
  const dry = await api(gateway, 'POST', '/api/purge', { upstream: 'origin', repository: 'acme/one' })
  assert.deepEqual([dry.json.isDry, isHeld(gateway, one)], [true, true])
  assert.ok(dry.json.bytes < 20 * KiB, 'what the other needs would not be freed')
  await api(gateway, 'POST', '/api/purge', { upstream: 'origin', repository: 'acme/one', dry: false })
  assert.deepEqual([isHeld(gateway, one), isHeld(gateway, shared)], [false, true])
  assert.ok(!existsSync(join(gateway.data, 'origin/docker/registry/v2/repositories/acme/one/_manifests/tags/1')))
  await pull(gateway, two)
  const { json } = await api(gateway, 'POST', '/api/purge', {
    upstream: 'origin',
    repository: 'acme/two',
    tag: '1',
    dry: false,
  })
  assert.ok(json.bytes >= 200 * KiB)
  assert.equal(isHeld(gateway, shared), false)
})

test('a sweep frees what no image needs, learns what was copied in, and drops links that lead nowhere', async () => {
  await using registry = await startScriptedRegistry()
  const image = load(registry, 'acme/app', '1', [seededBlob('kept', 50 * KiB)])
  const loose = seededBlob('loose', 70 * KiB)
  const lost = seededBlob('lost', 10 * KiB)
  registry.repository('acme/app').add(loose, lost)
  await using gateway = await start(registry, 'quota: unlimited')
  await pull(gateway, image)
  for (const { digest } of [loose, lost]) await askDigest(`${gateway.url}/v2/acme/app/blobs/${digest}`)
  await rm(blobFile(gateway, lost.digest))
  const before = lstatSync(blobFile(gateway, loose.digest)).blocks * 512
  const dry = await api(gateway, 'POST', '/api/sweep', { upstream: 'origin' })
  assert.deepEqual([dry.json.orphans, dry.json.orphanBytes, dry.json.links], [1, before, 2])
  assert.ok(isHeld(gateway, loose))
  const done = await api(gateway, 'POST', '/api/sweep', { upstream: 'origin', dry: false })
  assert.deepEqual([done.json.orphans, done.json.orphanBytes, done.json.links], [1, before, 2])
  assert.deepEqual([isHeld(gateway, loose), image.blobs.every((blob) => isHeld(gateway, blob))], [false, true])
  await pull(gateway, image)
})

test('last use outlives the ledger', async () => {
  await using registry = await startScriptedRegistry()
  const old = load(registry, 'acme/old', '1', [seededBlob('old', 10 * KiB)])
  const recent = load(registry, 'acme/recent', '1', [seededBlob('recent', 10 * KiB)])
  await using first = await start(registry, 'quota: unlimited')
  await pull(first, old)
  await pull(first, recent)
  await first.stop()
  const link = join(
    first.data,
    `origin/docker/registry/v2/repositories/acme/old/_manifests/revisions/sha256/${old.digest.slice(7)}/link`,
  )
  utimesSync(link, new Date('2020-01-01'), new Date('2020-01-01'))
  for (const suffix of ['', '-wal', '-shm']) await rm(`${first.data}/ledger.sqlite${suffix}`, { force: true })
  await using gateway = await start(registry, 'quota: unlimited', { data: first.data })
  let images: Reply['images'] = []
  for (let tries = 0; tries < 50 && images.length < 2; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    images = (await api(gateway, 'GET', '/api/images')).json.images
  }
  assert.equal(images.find(({ repository }) => repository === 'acme/old')?.usedAt, '2020-01-01T00:00:00.000Z')
})

test('the admin API says what is wrong with a request, and takes commands from no web page', async () => {
  await using registry = await startScriptedRegistry()
  await using gateway = await start(registry, 'quota: 5MiB')
  const cases: readonly (readonly [string, string, object | undefined, number, RegExp])[] = [
    ['GET', '/api/images?limit=0', undefined, 400, /limit: Too small/],
    ['GET', '/api/images?upstream=nowhere', undefined, 404, /no upstream is called nowhere; there are origin/],
    ['POST', '/api/purge', { upstream: 'origin', tag: '1' }, 400, /a tag or digest needs its repository/],
    ['POST', '/api/purge', { upstream: 'origin', repository: 'acme/none', tag: '1' }, 404, /not held/],
    ['POST', '/api/purge', { upstream: 'origin', repository: 'UPPER' }, 400, /no repository name/],
    ['POST', '/api/pins', { upstream: 'origin', pattern: 'a b' }, 400, /without spaces/],
    ['POST', '/api/pins', { upstream: 'origin', pattern: 'a', more: 1 }, 400, /more/],
    ['POST', '/api/sweep', {}, 400, /upstream/],
  ]
  for (const [method, path, body, status, message] of cases) {
    const reply = await api(gateway, method, path, body)
    assert.equal(reply.status, status, path)
    assert.match(reply.json.error, message)
  }
  assert.deepEqual((await api(gateway, 'GET', '/api/upstreams')).json.upstreams, [
    { upstream: 'origin', bytes: 0, quotaBytes: 5 * MiB },
  ])
  const form = await fetch(`${gateway.adminUrl}/api/sweep`, { method: 'POST', body: '{"upstream":"origin"}' })
  assert.equal(form.status, 415)
  const rebound = await ask(`${gateway.adminUrl}/api/images`, { headers: { host: 'evil.example' } })
  assert.equal(rebound.status, 403)
})

test('the commands work through a running gateway and on the folder alone, and change nothing without --yes', async (t) => {
  await using registry = await startScriptedRegistry()
  const image = load(registry, 'acme/app', '1', [seededBlob('by command', 40 * KiB)])
  await using gateway = await start(registry, 'quota: unlimited')
  await pull(gateway, image)
  const config = join(gateway.data, '../for-commands.yaml')
  await writeFile(
    config,
    `data: ${gateway.data}\nupstreams: ${join(gateway.data, '../upstreams.d')}\nadmin: { address: '${new URL(gateway.adminUrl).host}' }\n`,
  )
  const command = async (...words: string[]): Promise<{ code: number; text: string }> => {
    let text = ''
    const write = t.mock.method(process.stdout, 'write', (chunk: string) => ((text += chunk), true))
    const writeError = t.mock.method(process.stderr, 'write', (chunk: string) => ((text += chunk), true))
    const code = await run([...words, '-c', config]).finally(() => (write.mock.restore(), writeError.mock.restore()))
    return { code, text }
  }
  for (const place of ['running', 'folder']) {
    if (place === 'folder') await gateway.stop()
    const listed = await command('ls')
    assert.equal(listed.code, 0, listed.text)
    assert.match(
      listed.text,
      /^IMAGE +TAGS +SIZE +LAST USED +PULLS\norigin\/acme\/app +1 +\d\d KiB +just now +1\n/,
      place,
    )
    assert.match(
      (await command('purge', 'origin/acme/app:1')).text,
      /would be removed\n\n1 image, \d\d KiB would be freed/,
    )
    assert.ok(isHeld(gateway, image))
    assert.match((await command('pin', `origin/acme/${place}:*`)).text, /pinned\n$/)
    assert.match((await command('pin')).text, new RegExp(`origin/acme/${place}:\\* +operator`))
    assert.match((await command('sweep')).text, /Nothing to free/)
  }
  assert.match((await command('purge', 'origin/acme/app', '--yes')).text, /1 image removed, \d\d KiB freed/)
  assert.ok(!isHeld(gateway, image))
  assert.match((await command('ls')).text, /no image is held/)
  const wrong = await command('purge', 'elsewhere/x')
  assert.deepEqual([wrong.code, /no upstream is called elsewhere/.test(wrong.text)], [2, true])
})
