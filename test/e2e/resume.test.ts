// One blob of 1 GiB, an upstream that cuts its connections at 50 random places, a gateway that is killed ten times on the
// way, and one client that does as containerd does: it asks for the rest. `SEED=` replays the places (not the timing).

import assert from 'node:assert/strict'
import { createHash, type Hash, randomInt } from 'node:crypto'
import { Agent, request } from 'node:http'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fault, type Fault, type RequestRecord } from '../support/fault-script.ts'
import { ScriptedRegistry } from '../support/scripted-registry.ts'
import { type Blob, blobOf, imageManifest, SeededRandom, seededBlob } from '../support/tiny-image.ts'
import { type Gateway, startGateway } from './gateway.ts'
import { temporaryFolder } from './lab.ts'

const SEED = process.env['SEED'] ?? String(randomInt(2 ** 32))
const SIZE = 1024 ** 3
const CUTS = 50
const KILLS = 10
/** Of one upstream connection; the gateway opens four for a blob of this size: 40 MB/s in all. */
const BYTES_PER_SECOND = 10_000_000
const MAX_RATIO = 1.05
const REPOSITORY = 'acme/large'
/** A client that gets no byte in so many attempts in a row has met a gateway that does not come back. */
const MAX_BARREN_ATTEMPTS = 40

/** Places in the blob at which the connection that carries them there ends, each once. */
class Cuts {
  readonly #places: number[]
  readonly #random: SeededRandom
  readonly #assigned = new Map<number, RequestRecord>()
  #resets = 0

  constructor(random: SeededRandom, count: number) {
    this.#random = random
    this.#places = Array.from({ length: count }, () => random.between(1, SIZE - 1)).toSorted((a, b) => a - b)
  }

  /** The fault for a request that will carry an unused place: where it ends and how. */
  readonly choose = (request: RequestRecord): readonly Fault[] => {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.range ?? 'bytes=0-') ?? []
    const from = Number(first)
    const to = last === '' || last === undefined ? SIZE : Number(last) + 1
    const place = this.#places.find((one) => one > from && one < to && !this.#isTaken(one))
    if (place === undefined) return []
    this.#assigned.set(place, request)
    const isReset = this.#random.between(0, 1) === 1
    if (isReset) this.#resets++
    return [isReset ? fault.reset(place - from) : fault.cut(place - from)]
  }

  /** Connections that were really ended here, at their place. */
  get made(): number {
    return [...this.#assigned].filter(([place, request]) => isMade(place, request)).length
  }

  get resets(): number {
    return this.#resets
  }

  /** A place is free again when the gateway went away before it was reached. */
  #isTaken(place: number): boolean {
    const request = this.#assigned.get(place)
    return request !== undefined && (request.endedAt === undefined || isMade(place, request))
  }
}

function isMade(place: number, { offset, bytesSent, endedAt }: RequestRecord): boolean {
  return endedAt !== undefined && offset + bytesSent === place
}

interface Progress {
  received: number
  readonly hash: Hash
}

/** One request for the rest of the blob, from where the client is. Resolves however it ends. */
function askForRest(url: string, progress: Progress, onGrown: () => void): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const headers = progress.received === 0 ? {} : { range: `bytes=${progress.received}-` }
  const outgoing = request(url, { headers, agent: new Agent({ keepAlive: false }) }, (incoming) => {
    const isRight =
      progress.received === 0
        ? incoming.statusCode === 200
        : incoming.headers['content-range'] === `bytes ${progress.received}-${SIZE - 1}/${SIZE}`
    if (!isRight) return void outgoing.destroy()
    incoming.on('data', (chunk: Buffer) => {
      progress.hash.update(chunk)
      progress.received += chunk.length
      onGrown()
    })
    incoming.on('error', () => undefined)
  })
  outgoing.on('error', () => undefined)
  outgoing.on('close', () => resolve())
  outgoing.end()
  return promise
}

interface Run {
  readonly registry: ScriptedRegistry
  readonly blob: Blob
  readonly folder: string
  readonly killPlaces: readonly number[]
}

interface Outcome {
  readonly digest: string
  readonly attempts: number
  readonly kills: number
  readonly events: ReadonlyMap<string, number>
}

/** Downloads the blob, killing the gateway whenever the client has passed the next of `killPlaces`. */
async function download({ registry, blob, folder, killPlaces }: Run): Promise<Outcome> {
  const options = { folder, upstreams: [{ name: 'docker.io', url: registry.url }] }
  let gateway = await startGateway(options)
  const events = new Map<string, number>()
  const countEvents = ({ lines }: Gateway): void => {
    for (const line of lines) {
      const event = /"event":"([a-z._]+)"/.exec(line)?.[1]
      if (event !== undefined) events.set(event, (events.get(event) ?? 0) + 1)
    }
  }
  try {
    const url = `http://${gateway.all}/v2/${REPOSITORY}/blobs/${blob.digest}`
    // A client reads the manifest first; from it the gateway knows how long the blob is, and fetches it in segments.
    const manifest = await fetch(`http://${gateway.all}/v2/${REPOSITORY}/manifests/1`)
    assert.equal(manifest.status, 200)
    await manifest.body?.cancel()
    const progress: Progress = { received: 0, hash: createHash('sha256') }
    const left = [...killPlaces]
    let attempts = 0
    for (let barren = 0; progress.received < SIZE; attempts++) {
      const before = progress.received
      let isKilled = false
      await askForRest(url, progress, () => {
        if (isKilled || progress.received < (left[0] ?? Infinity)) return
        isKilled = true
        left.shift()
        gateway.kill('SIGKILL')
      })
      if (isKilled) {
        await gateway.stop()
        countEvents(gateway)
        gateway = await startGateway({ ...options, at: gateway })
      } else if (progress.received < SIZE) await delay(100)
      barren = progress.received > before ? 0 : barren + 1
      assert.ok(barren < MAX_BARREN_ATTEMPTS, `no byte after ${progress.received} in ${barren} attempts`)
    }
    countEvents(gateway)
    return { digest: `sha256:${progress.hash.digest('hex')}`, attempts, kills: killPlaces.length - left.length, events }
  } finally {
    await gateway[Symbol.asyncDispose]()
  }
}

void test('a blob of 1 GiB survives 50 cuts and 10 kills and costs little more than its size', async (t) => {
  t.diagnostic(`resume: SEED=${SEED}`)
  const random = new SeededRandom(SEED)
  const blob = seededBlob(SEED, SIZE)
  const cuts = new Cuts(random, CUTS)
  const margin = Math.floor(SIZE / 100)
  const killPlaces = Array.from({ length: KILLS }, () => random.between(margin, SIZE - margin)).toSorted(
    (a, b) => a - b,
  )
  await using folder = await temporaryFolder()
  await using registry = new ScriptedRegistry()
  await registry.listen()
  const layer = { ...blob, mediaType: 'application/vnd.oci.image.layer.v1.tar' }
  const config = blobOf('{}', { mediaType: 'application/vnd.oci.image.config.v1+json' })
  registry
    .repository(REPOSITORY)
    .add(config, layer)
    .tag('1', imageManifest(config, [layer]))
  const isBlobGet = { method: 'GET', kind: 'blob' }
  registry.scriptAlways(isBlobGet, fault.rate(BYTES_PER_SECOND))
  registry.scriptAlways(isBlobGet, cuts.choose)

  const startedAt = performance.now()
  const outcome = await download({ registry, blob, folder: folder.path, killPlaces })
  const seconds = (performance.now() - startedAt) / 1000

  const traffic = registry.trafficOf(blob.digest)
  const ratio = traffic / SIZE
  const aborted = registry.transfers(blob.digest).filter(({ aborted }) => aborted)
  t.diagnostic(
    `resume: ${cuts.made} cuts (${cuts.resets} RST), ${outcome.kills} kills, ${outcome.attempts} client requests, ` +
      `${registry.transfers(blob.digest).length} upstream requests, ${seconds.toFixed(0)} s`,
  )
  t.diagnostic(
    `resume: upstream bytes / size = ${ratio.toFixed(4)} (target ${MAX_RATIO}): ${traffic - SIZE} bytes too much, ` +
      `${aborted.length} transfers ended by kills; counted is what the upstream's kernel took: more than the gateway ever read`,
  )
  t.diagnostic(`resume: gateway events ${JSON.stringify(Object.fromEntries(outcome.events))}`)
  assert.equal(outcome.digest, blob.digest)
  assert.equal(outcome.kills, KILLS)
  assert.equal(cuts.made, CUTS)
  assert.ok(ratio <= MAX_RATIO, `upstream bytes / size = ${ratio}`)
})
