// A site leaves a stock registry in proxy mode: its folder, moved to `<data>/docker.io`, is served without a download.
// And the way back: a stock registry over our folder serves what was pulled through us.

import assert from 'node:assert/strict'
import { cp, mkdir, open, readdir, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Image, type ImageName, loadContent } from './content.ts'
import { type Gateway, startGateway } from './gateway.ts'
import { labProgram, missingProgram, run, temporaryFolder } from './lab.ts'
import { assertServed, blobFile, getDigest, readStored, type ServedCounts } from './stored-content.ts'
import { type LoggedRequest, REGISTRY_2, startPlainRegistry, startProxyRegistry, type Upstream } from './upstreams.ts'

const UPSTREAM = 'docker.io'
const IMAGES: readonly ImageName[] = ['debian', 'app', 'zstd', 'secret']
const SCHEDULE = 'scheduler-state.json'
/** A whole body of more than this is on its way before its digest is known; its end waits. */
const HOLD_BACK_BYTES = 256 * 1024

const PROXIES = [
  { name: 'distribution 3.1.2', program: labProgram('registry') },
  { name: 'distribution 2.8 of Debian', program: REGISTRY_2 },
] as const

const unable = [labProgram('registry'), labProgram('crane'), REGISTRY_2]
  .map((program) => missingProgram(program))
  .find((reason) => reason !== undefined)

/** Pulls each image whole, all platforms, and checks that the index or manifest is the right one. */
async function craneAll(address: string, images: readonly Image[]): Promise<void> {
  await using work = await temporaryFolder()
  const home = { cwd: work.path, env: { HOME: work.path, DOCKER_CONFIG: work.path } }
  for (const [index, image] of images.entries()) {
    const reference = `${address}/${image.repository}`
    const digest = await run(labProgram('crane'), ['digest', '--insecure', `${reference}:${image.tag}`], home)
    assert.equal(digest.trim(), image.digest, reference)
    await run(
      labProgram('crane'),
      ['pull', '--insecure', '--format=oci', `${reference}:${image.tag}`, `${index}`],
      home,
    )
    for (const { digest: blob } of image.blobs) {
      const hex = blob.slice('sha256:'.length)
      assert.ok(await stat(join(work.path, `${index}`, 'blobs', 'sha256', hex)), `${reference}: ${blob}`)
    }
  }
}

function startFor(folder: string, upstream: Upstream): Promise<Gateway> {
  const drain = { delay: '0s', timeout: '5s' }
  return startGateway({ folder, upstreams: [{ name: UPSTREAM, url: upstream.url }], more: { drain } })
}

function isBlobGet({ method, path }: LoggedRequest): boolean {
  return method === 'GET' && path.includes('/blobs/')
}

function shown({ tags, manifests, blobs, bytes }: ServedCounts): string {
  return `${tags} tags, ${manifests} manifests, ${blobs} blobs, ${(bytes / 1e6).toFixed(0)} MB`
}

/** Waits for the file in which the proxy plans what expires when: it is written five seconds after something changed. */
async function scheduled(storage: string): Promise<void> {
  const deadline = Date.now() + 20_000
  while ((await stat(join(storage, SCHEDULE)).catch(() => undefined)) === undefined) {
    assert.ok(Date.now() < deadline, `the proxy wrote no ${SCHEDULE}`)
    await delay(200)
  }
}

async function flipByte(file: string, position: number): Promise<void> {
  await using handle = await open(file, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, position)
  byte[0] = (byte[0] ?? 0) ^ 0xff
  await handle.write(byte, 0, 1, position)
}

void describe('a folder of the distribution layout', { concurrency: false, skip: unable ?? false }, () => {
  for (const { name, program } of PROXIES) {
    void test(
      `written by ${name} in proxy mode is served whole without a download`,
      { timeout: 300_000 },
      async (t) => {
        const content = await loadContent()
        const images = IMAGES.map((image) => content.image(image))
        await using folder = await temporaryFolder()
        await using upstream = await startPlainRegistry(`${folder.path}/upstream`, content.storage(UPSTREAM))
        const written = join(folder.path, 'proxy-storage')
        {
          await using proxy = await startProxyRegistry(`${folder.path}/proxy`, written, upstream.url, program)
          await craneAll(proxy.host, images)
          await scheduled(written)
        }
        const adopted = join(folder.path, 'gateway', 'data', UPSTREAM)
        await mkdir(dirname(adopted), { recursive: true })
        await rename(written, adopted)
        await cp(adopted, join(folder.path, 'online', 'data', UPSTREAM), { recursive: true })
        const stored = await readStored(adopted)
        const schedule = await readFile(join(adopted, SCHEDULE))
        const scheduledAt = (await stat(join(adopted, SCHEDULE))).mtimeMs

        await upstream.stop()
        {
          await using gateway = await startFor(join(folder.path, 'gateway'), upstream)
          const counts = await assertServed(gateway.all, stored)
          for (const image of images) {
            const repository = stored.find((one) => one.name === image.repository)
            assert.equal(
              repository?.tags.get(image.tag),
              image.digest,
              `${image.repository}:${image.tag} in the folder`,
            )
          }
          await craneAll(gateway.all, images)
          t.diagnostic(`adopted from ${name}, upstream stopped: served ${shown(counts)}, digests equal, 0 downloads`)
          await gateway.stop()
        }
        assert.deepEqual(await readFile(join(adopted, SCHEDULE)), schedule)
        assert.equal((await stat(join(adopted, SCHEDULE))).mtimeMs, scheduledAt)

        await upstream.start()
        const mark = upstream.requests().length
        {
          await using gateway = await startFor(join(folder.path, 'online'), upstream)
          await assertServed(gateway.all, stored)
          await craneAll(gateway.all, images)
          await gateway.stop()
        }
        // The line of the probe that saw it ready may come late.
        const asked = upstream
          .requests()
          .slice(mark)
          .filter(({ path }) => path !== '/v2/')
        assert.deepEqual(asked.filter(isBlobGet), [])
        const found = asked.filter(({ status }) => status === 200)
        const fetched = found.filter(({ method, path }) => method !== 'HEAD' && !path.includes('/tags/list'))
        assert.deepEqual(fetched, [])
        t.diagnostic(
          `adopted from ${name}, upstream up: 0 blobs and 0 manifests fetched; ${found.length} HEADs and lists of its tags, ` +
            `${asked.length - found.length} questions for referrers (it has none)`,
        )
      },
    )
  }

  void test('with a flipped byte never gives a complete wrong body and is mended', { timeout: 300_000 }, async (t) => {
    const content = await loadContent()
    const image = content.image('app')
    await using folder = await temporaryFolder()
    await using upstream = await startPlainRegistry(`${folder.path}/upstream`, content.storage(UPSTREAM))
    const written = join(folder.path, 'proxy-storage')
    {
      await using proxy = await startProxyRegistry(`${folder.path}/proxy`, written, upstream.url)
      await craneAll(proxy.host, [image])
    }
    const adopted = join(folder.path, 'gateway', 'data', UPSTREAM)
    await mkdir(dirname(adopted), { recursive: true })
    await rename(written, adopted)
    const large = image.blobs.toSorted((one, other) => other.size - one.size)[0]
    const small = image.blobs.find(({ size }) => size < HOLD_BACK_BYTES)
    const offline = image.blobs.find(({ size }) => size > HOLD_BACK_BYTES && size !== large?.size)
    assert.ok(large !== undefined && small !== undefined && offline !== undefined)
    for (const { digest, size } of [large, small, offline]) await flipByte(blobFile(adopted, digest), size >> 1)

    await using gateway = await startFor(join(folder.path, 'gateway'), upstream)
    const get = (digest: string): ReturnType<typeof getDigest> =>
      getDigest(`http://${gateway.all}/v2/${image.repository}/blobs/${digest}`)
    const quarantined = (): Promise<readonly string[]> => readdir(join(adopted, 'quarantine')).catch(() => [])

    await upstream.stop()
    const down = await get(offline.digest)
    assert.ok(down.isCut || down.status >= 500, `upstream stopped: ${down.status}, ${down.bytes} bytes`)
    const downAgain = await get(offline.digest)
    assert.ok(downAgain.isCut || downAgain.status >= 500, `upstream stopped, again: ${downAgain.status}`)
    assert.equal((await quarantined()).length, 1)

    await upstream.start()
    const first = await get(large.digest)
    assert.ok(first.isCut && first.bytes < large.size, `${first.bytes} of ${large.size} bytes, cut: ${first.isCut}`)
    // What was refused while the upstream was away may be remembered for a moment.
    for (const { digest } of [large, small, offline]) {
      const again = await get(digest)
      assert.equal(again.digest, digest, `${digest}: ${again.status}`)
    }
    assert.equal((await quarantined()).length, 3)
    for (const { digest } of [large, small, offline]) {
      const file = blobFile(adopted, digest)
      const onDisk = (await run('sha256sum', [file])).slice(0, 64)
      assert.equal(`sha256:${onDisk}`, digest)
    }
    t.diagnostic(
      `flipped byte: a ${large.size} byte layer was cut at ${first.bytes}, right at the next try; ` +
        `a ${small.size} byte one right at once; upstream stopped: ${down.isCut ? 'cut' : down.status}, then ${downAgain.status}`,
    )
  })

  void test('filled through the gateway is served by a stock registry', { timeout: 300_000 }, async (t) => {
    const content = await loadContent()
    const images = IMAGES.map((image) => content.image(image))
    await using folder = await temporaryFolder()
    await using upstream = await startPlainRegistry(`${folder.path}/upstream`, content.storage(UPSTREAM))
    {
      await using gateway = await startFor(join(folder.path, 'gateway'), upstream)
      await craneAll(gateway.all, images)
      await gateway.stop()
    }
    await upstream.stop()
    const ours = join(folder.path, 'gateway', 'data', UPSTREAM)
    const stored = await readStored(ours)
    for (const { name, program } of PROXIES) {
      await using stock = await startPlainRegistry(`${folder.path}/stock`, ours, program)
      await craneAll(stock.host, images)
      const counts = await assertServed(stock.host, stored)
      t.diagnostic(`our folder under ${name}: served ${shown(counts)}, digests equal`)
    }
  })
})
