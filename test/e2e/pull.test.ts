// The matrix: every client, in every way it names an upstream, pulls through one gateway from real registries: cold, warm,
// and with the upstreams stopped. Docker Hub's part is played by a registry with Bearer tokens from a token server, ghcr.io's
// by one with Basic over TLS from a private CA, quay.io's by a plain one. Run as root: containerd and dockerd need it.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { allClients, type Client, type GatewayAddress, missingFor } from './clients.ts'
import { type Content, type Image, type ImageName, loadContent, type RegistryName } from './content.ts'
import { type Gateway, startGateway, type UpstreamFile } from './gateway.ts'
import { type Folder, labProgram, missingProgram, readTools, temporaryFolder } from './lab.ts'
import {
  type BasicTlsUpstream,
  type BearerUpstream,
  type LoggedRequest,
  startBasicTlsRegistry,
  startBearerRegistry,
  startPlainRegistry,
  type Upstream,
} from './upstreams.ts'

/** Short, so that the warm pull asks the upstream again about its tag, and the last pull meets it gone. */
const TAG_TTL_MS = 1000

interface World extends AsyncDisposable {
  readonly content: Content
  readonly hub: BearerUpstream
  readonly ghcr: BasicTlsUpstream
  readonly quay: Upstream
  readonly upstreams: readonly Upstream[]
  readonly files: readonly UpstreamFile[]
}

async function startWorld(): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const content = await loadContent()
  const folder = stack.use(await temporaryFolder())
  const storage = (name: RegistryName): string => content.storage(name)
  const hub = stack.use(await startBearerRegistry(`${folder.path}/hub`, storage('docker.io'), ['library/']))
  const ghcr = stack.use(await startBasicTlsRegistry(`${folder.path}/ghcr`, storage('ghcr.io')))
  const quay = stack.use(await startPlainRegistry(`${folder.path}/quay`, storage('quay.io')))
  const tags = { ttl: `${TAG_TTL_MS / 1000}s` }
  const files: UpstreamFile[] = [
    {
      name: 'docker.io',
      url: hub.url,
      // The public repositories are pulled anonymously, the private ones with the account.
      auth: [{ repositories: ['private/**'], username: hub.username, password: 'env:HUB_PASSWORD' }],
      access: 'shared',
      network: { realms: [new URL(hub.realm).host], allowPrivate: ['127.0.0.0/8'] },
      tags,
    },
    {
      name: 'ghcr.io',
      url: ghcr.url,
      auth: { username: ghcr.username, password: 'env:GHCR_PASSWORD' },
      access: 'shared',
      network: { ca: ghcr.caFile },
      tags,
    },
    { name: 'quay.io', url: quay.url, tags },
  ]
  const owned = stack.move()
  return {
    content,
    hub,
    ghcr,
    quay,
    upstreams: [hub, ghcr, quay],
    files,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

function startFor(world: World, folder: Folder): Promise<Gateway> {
  return startGateway({
    folder: `${folder.path}/gateway`,
    upstreams: world.files,
    env: { HUB_PASSWORD: world.hub.password, GHCR_PASSWORD: world.ghcr.password },
  })
}

/** What each kind of client pulls: always from two upstreams where it can. */
function imagesFor(client: Client): readonly ImageName[] {
  switch (client.pulls) {
    case 'charts':
      return ['chart']
    case 'signed images':
      return ['signed']
    case 'docker.io images':
      return ['app', 'secret']
    case 'images':
      if (client.name === 'oras' || client.name === 'regctl') return ['app', 'tools', 'secret', 'signed']
      if (client.name === 'crane' || client.name === 'containerd 2 _default') return ['app', 'tools', 'secret', 'zstd']
      return ['app', 'tools', 'secret']
  }
}

interface Row {
  readonly client: string
  readonly route: string
  readonly cold?: number
  readonly warm?: number
  readonly stopped?: number
  readonly equal: string
}

const rows: Row[] = []
const missing: string[] = []

function printTable(): void {
  const head = ['client', 'route', 'cold s', 'warm s', 'upstream down s', 'digests equal']
  const seconds = (ms: number | undefined): string => (ms === undefined ? '-' : (ms / 1000).toFixed(1))
  const lines = rows.map((row) => [
    row.client,
    row.route,
    seconds(row.cold),
    seconds(row.warm),
    seconds(row.stopped),
    row.equal,
  ])
  const widths = head.map((title, column) => Math.max(title.length, ...lines.map((line) => line[column]?.length ?? 0)))
  const text = [head, ...lines].map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  process.stdout.write(`\n${text.join('\n')}\n`)
  const unavailable = readTools().flatMap((tool) => (tool.error === undefined ? [] : [`${tool.name}: ${tool.error}`]))
  const lacking = [...new Set([...missing, ...unavailable])]
  process.stdout.write(`\nnot to be had here: ${lacking.length === 0 ? 'nothing' : `\n${lacking.join('\n')}`}\n\n`)
}

interface Phase {
  readonly ms: number
  readonly digests: ReadonlyMap<ImageName, readonly string[]>
}

/** Pulls every image with a client that has nothing: state folder and daemon are new. The time is of the pulls alone. */
async function pullAll(
  client: Client,
  gateway: GatewayAddress,
  images: readonly (readonly [ImageName, Image])[],
): Promise<Phase> {
  await using folder = await temporaryFolder()
  await using session = await client.open(folder.path, gateway)
  const digests = new Map<ImageName, readonly string[]>()
  const startedAt = performance.now()
  for (const [name, image] of images) digests.set(name, await session.pull(image))
  return { ms: performance.now() - startedAt, digests }
}

function assertSame(phase: string, now: Phase, cold: Phase): void {
  for (const [name, digests] of cold.digests) assert.deepEqual(now.digests.get(name), digests, `${phase}: ${name}`)
}

/** Bytes of blobs that an access log says were sent, by digest. */
function blobBytes(requests: readonly LoggedRequest[]): ReadonlyMap<string, number> {
  const sums = new Map<string, number>()
  for (const { method, path, status, bytes } of requests) {
    const digest = /\/blobs\/(sha256:[0-9a-f]{64})/.exec(path)?.[1]
    if (digest === undefined || method !== 'GET' || status >= 300) continue
    sums.set(digest, (sums.get(digest) ?? 0) + bytes)
  }
  return sums
}

/** What all upstreams were asked since `marks`. */
function requestsSince(world: World, marks: readonly number[]): readonly LoggedRequest[] {
  return world.upstreams.flatMap((upstream, index) => upstream.requests().slice(marks[index]))
}

function marksOf(world: World): readonly number[] {
  return world.upstreams.map((upstream) => upstream.requests().length)
}

const unable = missingProgram(labProgram('registry')) ?? missingProgram('/usr/bin/docker-registry')

void describe('real clients through the gateway', { concurrency: false }, () => {
  let world: World | undefined
  const theWorld = (): World => {
    if (world === undefined) throw new Error('the upstreams did not start')
    return world
  }
  before(
    async () => {
      assert.equal(unable, undefined, 'run test/e2e/setup.ts first')
      world = await startWorld()
    },
    { timeout: 600_000 },
  )
  after(async () => {
    printTable()
    await world?.[Symbol.asyncDispose]()
  })

  for (const client of allClients({ cosignPublicKey: () => theWorld().content.cosignPublicKey })) {
    const reason = missingFor(client)
    if (reason !== undefined) missing.push(`${client.name}: ${reason}`)
    const title = `${client.name} by ${client.route}: cold, warm, upstreams stopped`
    void test(title, { skip: reason ?? false, timeout: 600_000 }, async () => {
      await pullThrough(theWorld(), client)
    })
  }
})

async function pullThrough(world: World, client: Client): Promise<void> {
  const images = imagesFor(client).map((name) => [name, world.content.image(name)] as const)
  let row: Row = { client: client.name, route: client.route, equal: 'FAILED' }
  try {
    await using folder = await temporaryFolder()
    await using gateway = await startFor(world, folder)
    const marks = marksOf(world)
    const cold = await pullAll(client, gateway, images)
    row = { ...row, cold: cold.ms }
    for (const [name, image] of images) {
      assert.ok(cold.digests.get(name)?.includes(image.digest), `cold: ${name} is not ${image.digest}`)
      if (client.name !== 'oras' && client.name !== 'regctl') continue
      for (const referrer of image.referrers) {
        assert.ok(cold.digests.get(name)?.includes(referrer), `cold: ${name} came without its referrer ${referrer}`)
      }
    }
    // A large blob comes in segments, so it is bytes that are counted: each byte once.
    const came = blobBytes(requestsSince(world, marks))
    for (const { digest, size } of images.flatMap(([, image]) => image.blobs)) {
      const bytes = came.get(digest)
      if (bytes !== undefined) assert.equal(bytes, size, `cold: upstream bytes of ${digest}`)
    }

    await delay(TAG_TTL_MS + 100)
    const warmMarks = marksOf(world)
    const warm = await pullAll(client, gateway, images)
    row = { ...row, warm: warm.ms }
    assertSame('warm', warm, cold)
    // Background completion may still bring blobs that the client did not ask for; those it got must not come twice.
    const got = new Set([...cold.digests.values()].flat())
    const again = [...blobBytes(requestsSince(world, warmMarks)).keys()].filter((digest) => got.has(digest))
    assert.deepEqual(again, [], 'warm: blobs fetched again from upstream')

    await Promise.all(world.upstreams.map((upstream) => upstream.stop()))
    try {
      await delay(TAG_TTL_MS + 100)
      const stopped = await pullAll(client, gateway, images)
      row = { ...row, stopped: stopped.ms }
      assertSame('upstreams stopped', stopped, cold)
    } finally {
      await Promise.all(world.upstreams.map((upstream) => upstream.start()))
    }
    const metrics = await (await fetch(`http://${gateway.admin}/metrics`)).text()
    for (const text of [gateway.lines.join('\n'), metrics])
      assert.ok(!text.includes('canary-'), 'a password was printed')
    row = { ...row, equal: 'yes' }
  } catch (error) {
    row = {
      ...row,
      equal: `NO: ${error instanceof Error ? (error.message.split('\n')[0] ?? '').slice(0, 100) : String(error)}`,
    }
    throw error
  } finally {
    rows.push(row)
  }
}
