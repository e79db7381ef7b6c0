/** In an outage a tag answers an image that can be pulled: the newest one that is whole for a platform. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask, type Answer } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startPair, type GatewayPair } from '../support/gateway-pair.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { tinyImage, tinyIndex, type TinyImage } from '../support/tiny-image.ts'

const TAG = 'acme/app/manifests/1'
const one = tinyImage({ seed: 'one', repository: 'acme/app', tag: '1' })
const two = tinyImage({ seed: 'two', repository: 'acme/app', tag: '1' })
const three = tinyIndex({ seed: 'three', repository: 'acme/app', tag: '1' })

interface Site extends GatewayPair {
  readonly clock: ManualClock
}

async function startSite(): Promise<Site> {
  const clock = new ManualClock()
  const pair = await startPair({ clock, upstream: 'fill: { complete: never }\ntags: { maxWait: 1s }' })
  return { ...pair, clock }
}

function digestOf({ status, headers }: Answer): string {
  assert.equal(status, 200)
  return String(headers['docker-content-digest'])
}

/** The digest the tag answers, once what was confirmed before is old. */
async function answered({ clock, get }: Site): Promise<string> {
  clock.advance(120_000)
  return digestOf(await get(TAG))
}

async function move(site: Site, image: TinyImage): Promise<void> {
  site.registry.load(image)
  assert.equal(await answered(site), image.root.digest)
}

async function pull({ get }: Site, { blobs }: TinyImage): Promise<void> {
  for (const { digest } of blobs) assert.equal((await get(`acme/app/blobs/${digest}`)).status, 200)
}

test('an image of which only the manifest came is not the answer of an outage, but is again after it', async () => {
  await using site = await startSite()
  await move(site, one)
  await pull(site, one)
  await move(site, two)
  const outage = site.registry.scriptAlways({}, fault.status(500))
  assert.equal(await answered(site), one.root.digest)
  const [said] = site.gateway.events.filter(({ event }) => event === 'tag.served_stale')
  assert.match(String(said?.['reason']), new RegExp(`${two.root.digest} is not whole here, so ${one.root.digest}`))
  for (const { digest } of one.blobs) assert.equal((await site.get(`acme/app/blobs/${digest}`)).status, 200)
  outage.stop()
  assert.equal(await answered(site), two.root.digest)
})

test('the newest whole image is the answer of an outage, never an older one', async () => {
  await using site = await startSite()
  for (const image of [one, two]) {
    await move(site, image)
    await pull(site, image)
  }
  await move(site, three)
  site.registry.scriptAlways({}, fault.reset())
  assert.equal(await answered(site), two.root.digest)
})

test('an index is whole with one platform, and a part of one is not', async () => {
  await using site = await startSite()
  await move(site, one)
  await pull(site, one)
  await move(site, three)
  const [, first] = three.manifests.toSorted((a) => (a === three.root ? -1 : 1))
  assert.equal((await site.get(`acme/app/manifests/${first?.digest}`)).status, 200)
  const outage = site.registry.scriptAlways({}, fault.status(503))
  assert.equal(await answered(site), one.root.digest)
  outage.stop()
  const parsed = JSON.parse(Buffer.from(first?.bytes ?? []).toString()) as {
    config: { digest: string }
    layers: { digest: string }[]
  }
  site.clock.advance(120_000)
  for (const { digest } of [parsed.config, ...parsed.layers]) {
    assert.equal((await site.get(`acme/app/blobs/${digest}`)).status, 200)
  }
  site.registry.scriptAlways({}, fault.status(503))
  assert.equal(await answered(site), three.root.digest)
})

test('where nothing is whole the tag answers what it pointed to last', async () => {
  await using site = await startSite()
  await move(site, one)
  await move(site, two)
  site.registry.scriptAlways({}, fault.status(500))
  assert.equal(await answered(site), two.root.digest)
})

test('configured offline a tag answers a whole image too', async () => {
  await using site = await startSite()
  await move(site, one)
  await pull(site, one)
  await move(site, two)
  await site.gateway.stop()
  const upstreams = { origin: `url: ${site.registry.url}\noffline: true` }
  await using offline = await startTestGateway({ upstreams, default: 'origin', data: site.gateway.data })
  assert.equal(digestOf(await ask(`${offline.url}/v2/${TAG}`)), one.root.digest)
})
