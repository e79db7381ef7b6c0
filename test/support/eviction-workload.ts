/**
 * Pulls, evictions, sweeps and purges that race over one folder with a quota far too small, from a seed. Every pull is
 * checked byte for byte; the disk is measured all along; afterwards every file and every link is.
 */
import { createHash } from 'node:crypto'
import { readdirSync, lstatSync, readFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { ask, askDigest } from './client.ts'
import { startScriptedRegistry } from './scripted-registry.ts'
import { startTestGateway, type TestGateway } from './start-gateway.ts'
import { imageManifest, seededBlob, SeededRandom, type Blob } from './tiny-image.ts'

const KiB = 1024
/** Pulls and commands between two measurements: each looks at every file. */
const MEASURE_EVERY = 3
const NAMES = ['acme/a', 'acme/b', 'acme/c/d', 'library/e'] as const

export interface WorkloadOptions {
  readonly seed: string
  /** Requests of clients and commands of operators, together. */
  readonly operations: number
  readonly workers: number
  readonly quotaBytes: number
  /** In all, some four of which share a base. */
  readonly images: number
}

export interface WorkloadResult {
  readonly operations: number
  readonly pulls: number
  /** What went wrong for a client, a line each. */
  readonly failures: readonly string[]
  /** Most that was ever on the disk, of blobs and bodies on their way in. */
  readonly peakBytes: number
  readonly largestBytes: number
  /** How often the disk was measured. */
  readonly samples: number
  readonly evictedImages: number
  readonly evictedBytes: number
  readonly bypassed: number
  /** What is wrong in the folder afterwards, a line each. */
  readonly defects: readonly string[]
}

interface HeldImage {
  readonly repository: string
  readonly tag: string
  readonly digest: string
  readonly blobs: readonly Blob[]
}

export async function runEvictionWorkload(options: WorkloadOptions): Promise<WorkloadResult> {
  const random = new SeededRandom(options.seed)
  await using registry = await startScriptedRegistry()
  const images = makeImages(options, random)
  for (const { repository, tag, blobs, manifest } of images) {
    registry
      .repository(repository)
      .add(...blobs)
      .tag(tag, manifest)
  }
  await using gateway = await startTestGateway({
    upstreams: {
      origin: `url: ${registry.url}\nkeep: { quota: ${options.quotaBytes}B }\nfill: { complete: never }\ntags: { ttl: 0s }`,
    },
    default: 'origin',
    keeping: { imageMinAgeMs: 0, orphanMinAgeMs: 0, intervalMs: 150, sweepIntervalMs: 400, startDelayMs: 50 },
  })
  const run = new Run(options, gateway, images, random)
  await run.finish()
  await gateway.stop()
  const evicted = gateway.events.filter(({ event }) => event === 'image.evicted')
  for (const { event, reason, stack, code } of gateway.events) {
    if (event === 'defect.caught' || event === 'keeping.failed') {
      run.noted(JSON.stringify({ event, code, reason, stack }))
    }
  }
  return {
    ...run.result,
    bypassed: gateway.events.filter(({ outcome }) => outcome === 'bypass').length,
    evictedImages: evicted.length,
    evictedBytes: evicted.reduce((sum, { bytes }) => sum + Number(bytes), 0),
    defects: inspect(join(gateway.data, 'origin')),
  }
}

function makeImages({ images }: WorkloadOptions, random: SeededRandom) {
  const bases = Array.from({ length: Math.ceil(images / 4) }, (_, index) =>
    seededBlob(`base ${index}`, random.between(64, 192) * KiB),
  )
  return Array.from({ length: images }, (_, index) => {
    const config = seededBlob(`config ${index}`, random.between(1, 6) * KiB)
    const own = Array.from({ length: random.between(1, 3) }, (_each, at) =>
      seededBlob(`own ${index} ${at}`, random.between(4, 128) * KiB),
    )
    const base = bases[index % bases.length]
    const layers = base === undefined ? own : [base, ...own]
    const manifest = imageManifest(config, layers)
    const repository = random.pick(NAMES)
    return { repository, tag: `t${index}`, digest: manifest.digest, blobs: [config, ...layers], manifest }
  })
}

class Run {
  readonly #options: WorkloadOptions
  readonly #gateway: TestGateway
  readonly #images: readonly HeldImage[]
  readonly #random: SeededRandom
  readonly #failures: string[] = []
  readonly #largestBytes: number
  #operations = 0
  #pulls = 0
  #samples = 0
  #turns = 0
  #peakBytes = 0

  constructor(options: WorkloadOptions, gateway: TestGateway, images: readonly HeldImage[], random: SeededRandom) {
    this.#options = options
    this.#gateway = gateway
    this.#images = images
    this.#random = random
    this.#largestBytes = Math.max(...images.flatMap(({ blobs }) => blobs.map(({ content }) => content.size)))
  }

  get result(): Omit<WorkloadResult, 'defects' | 'evictedImages' | 'evictedBytes' | 'bypassed'> {
    return {
      operations: this.#operations,
      pulls: this.#pulls,
      failures: this.#failures,
      peakBytes: this.#peakBytes,
      largestBytes: this.#largestBytes,
      samples: this.#samples,
    }
  }

  noted(failure: string): void {
    this.#failures.push(failure)
  }

  async finish(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.workers }, () => this.#work()))
  }

  async #work(): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 4 })
    while (this.#operations < this.#options.operations) {
      const image = this.#images[this.#random.between(0, this.#images.length - 1)]
      if (image === undefined) return
      const choice = this.#random.between(1, 100)
      const work =
        choice <= 3
          ? this.#command('/api/purge', {
              upstream: 'origin',
              repository: image.repository,
              tag: image.tag,
              dry: false,
            })
          : choice === 4
            ? this.#command('/api/sweep', { upstream: 'origin', dry: false })
            : this.#pull(image, agent)
      await work.catch((error: unknown) => this.#failures.push(`${image.tag}: ${String(error)}`))
      if (++this.#turns % MEASURE_EVERY === 0) this.#measure()
    }
    agent.destroy()
  }

  async #pull({ repository, tag, digest, blobs }: HeldImage, agent: Agent): Promise<void> {
    const base = `${this.#gateway.url}/v2/${repository}`
    this.#pulls++
    this.#operations++
    const manifest = await ask(`${base}/manifests/${tag}`, { agent })
    if (manifest.status !== 200 || manifest.headers['docker-content-digest'] !== digest) {
      this.#failures.push(`${tag}: manifest ${manifest.status} ${manifest.body.toString().slice(0, 300)}`)
    }
    await Promise.all(
      blobs.map(async (blob) => {
        this.#operations++
        const url = `${base}/blobs/${blob.digest}`
        const { status, digest: got, isComplete } = await askDigest(url, { agent })
        if (status !== 200 || !isComplete || got !== blob.digest) {
          this.#failures.push(`${tag}: ${blob.digest}: ${status}, ${isComplete ? 'complete' : 'cut'}, ${got}`)
        }
      }),
    )
  }

  async #command(path: string, body: object): Promise<void> {
    this.#operations++
    const reply = await fetch(this.#gateway.adminUrl + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const text = await reply.text()
    if (reply.status !== 200 && reply.status !== 404) this.#failures.push(`${path}: ${reply.status} ${text}`)
  }

  /** In one go, so that nothing of ours comes or goes while it is counted. */
  #measure(): void {
    this.#samples++
    const root = join(this.#gateway.data, 'origin')
    const files = [...filesBelow(join(root, 'docker/registry/v2/blobs')), ...filesBelow(join(root, 'incoming'))]
    // Links on their way stand in `incoming` for a moment, and maps of bodies: neither is content.
    const content = files.filter((path) => !/\.(?:tmp|map)$/.test(path))
    const bytes = content.reduce((sum, path) => sum + diskBytes(path), 0)
    this.#peakBytes = Math.max(this.#peakBytes, bytes)
  }
}

function* filesBelow(folder: string): Generator<string> {
  let entries
  try {
    entries = readdirSync(folder, { withFileTypes: true })
  } catch {
    return
  }
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) yield* filesBelow(path)
    else yield path
  }
}

function diskBytes(path: string): number {
  return (lstatSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512
}

/** Every blob hashes to its name; every link and tag leads to one. */
function inspect(root: string): string[] {
  const defects: string[] = []
  const held = new Set<string>()
  for (const path of filesBelow(join(root, 'docker/registry/v2/blobs'))) {
    const [algorithm = '', , hex = ''] = path.split('/').slice(-4)
    const actual = createHash(algorithm).update(readFileSync(path)).digest('hex')
    if (actual !== hex) defects.push(`${path} hashes to ${actual}`)
    held.add(`${algorithm}:${hex}`)
  }
  for (const path of filesBelow(join(root, 'docker/registry/v2/repositories'))) {
    if (!path.endsWith('/link') || path.includes('/index/')) continue
    const digest = readFileSync(path, 'latin1')
    if (!held.has(digest)) defects.push(`${path} leads to ${digest}, which is not held`)
  }
  return defects
}
