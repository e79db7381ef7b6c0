// 200 clients pull one cold image at the same time. Gateway, upstream and clients are each a process of their own, on one
// machine whose processors they share. Counts are asserted; times are printed, for they say as much of the machine.

import assert from 'node:assert/strict'
import { cpus } from 'node:os'
import { test, type TestContext } from 'node:test'
import { startChild } from './child.ts'
import { startGateway } from './gateway.ts'
import { temporaryFolder } from './lab.ts'
import type { PullAnswer, PullQuestion } from './light-clients.ts'
import type { BlobTraffic, UpstreamAnswer, UpstreamQuestion } from './scripted-upstream.ts'

const MB = 1_000_000
/** Nine of 5 to 13 MB, and one that is large enough to come in segments. */
const LAYER_BYTES = [...Array.from({ length: 9 }, (_, index) => (5 + index) * MB), 64 * MB]
/** With these the processors are the limit: 200 clients take 200 times what the upstream sends. */
const FAST = { layerBytes: LAYER_BYTES, bytesPerSecond: 50 * MB }
/** With these the upstream is the limit. */
const SLOW = { layerBytes: Array.from({ length: 10 }, () => 2 * MB), bytesPerSecond: 0.7 * MB }
const TARGET_MS = 200
/** What containerd opens for one image. */
const CONNECTIONS = 3

interface Herd {
  readonly layerBytes: readonly number[]
  /** Of one upstream connection. */
  readonly bytesPerSecond: number
  readonly clients: number
  readonly isHashed: boolean
}

interface Outcome {
  readonly upstream: UpstreamAnswer
  readonly pulled: PullAnswer
}

/** A new upstream, a new gateway with nothing in its folder, and the clients at once. */
async function pullCold({ clients, isHashed, layerBytes, bytesPerSecond }: Herd): Promise<Outcome> {
  await using folder = await temporaryFolder()
  await using upstream = startChild<UpstreamQuestion, UpstreamAnswer>(new URL('scripted-upstream.ts', import.meta.url))
  await using herd = startChild<PullQuestion, PullAnswer>(new URL('light-clients.ts', import.meta.url))
  const image = { repository: 'acme/app', tag: '1' }
  const seed = `once ${clients}`
  const about = await upstream.ask({ kind: 'serve', ...image, seed, layerBytes, bytesPerSecond })
  const network = { realms: [about.realmHost], allowPrivate: ['127.0.0.0/8'] }
  await using gateway = await startGateway({
    folder: folder.path,
    upstreams: [{ name: 'docker.io', url: about.url, network }],
  })
  const blobs = about.blobs.map(({ digest, size }) => ({ digest, size }))
  const { manifest } = about
  const question = { gateway: gateway.all, ...image, manifest, blobs, clients, connections: CONNECTIONS, isHashed }
  const pulled = await herd.ask(question)
  return { upstream: await upstream.ask({ kind: 'report' }), pulled }
}

function assertOnce({ upstream, pulled }: Outcome, { clients }: Herd): void {
  assert.deepEqual(pulled.problems, [])
  assert.equal(pulled.pulls.length, clients * upstream.blobs.length)
  assert.equal(upstream.manifestGets, 1)
  assert.equal(upstream.tokens, 1)
  for (const { digest, size, gets, bytes, overlap } of upstream.blobs) {
    assert.equal(overlap, 0, `${digest}: bytes sent twice`)
    assert.equal(bytes, size, `${digest}: bytes sent`)
    if (size < 32 * 1024 * 1024) assert.equal(gets, 1, `${digest}: GETs`)
    else assert.ok(gets > 1, `${digest} came in segments`)
  }
}

function imageBytes({ manifest, blobs }: UpstreamAnswer): number {
  return manifest.size + blobs.reduce((sum, { size }) => sum + size, 0)
}

/** p50, p99 and the largest of some ms. */
function spread(values: readonly number[]): string {
  const sorted = values.toSorted((one, other) => one - other)
  const at = (share: number): string => (sorted[Math.ceil(share * sorted.length) - 1] ?? NaN).toFixed(0)
  const late = sorted.filter((value) => value > TARGET_MS).length
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms (${sorted.length} answers, ${late} over ${TARGET_MS} ms)`
}

function printTimes(t: TestContext, label: string, { upstream: { blobs }, pulled: { pulls } }: Outcome): void {
  const byDigest = new Map<string, BlobTraffic>(blobs.map((blob) => [blob.digest, blob]))
  const waits = pulls.map(({ digest, askedAt, firstByteAt }) => {
    const upstreamAt = byDigest.get(digest)?.firstByteAt ?? NaN
    return {
      sinceUpstream: firstByteAt - upstreamAt,
      sinceAsked: firstByteAt - askedAt,
      isEarly: askedAt <= upstreamAt,
    }
  })
  const early = waits.filter(({ isEarly }) => isEarly)
  const late = waits.filter(({ isEarly }) => !isEarly)
  t.diagnostic(
    `once, ${label}: client's first byte after the upstream's, asked before it: ${spread(early.map((w) => w.sinceUpstream))}`,
  )
  if (late.length === 0) return
  t.diagnostic(
    `once, ${label}: client's first byte after its request, asked after the upstream's: ${spread(late.map((w) => w.sinceAsked))}`,
  )
}

void test('200 cold clients on one image cost one upstream transfer', { timeout: 600_000 }, async (t) => {
  const herd = { ...FAST, clients: 200, isHashed: false }
  const outcome = await pullCold(herd)
  const { upstream, pulled } = outcome
  const segmented = upstream.blobs.filter(({ gets }) => gets > 1)
  t.diagnostic(
    `once: ${herd.clients} clients, ${upstream.blobs.length} blobs, ${(pulled.bytes / 1e9).toFixed(1)} GB to clients in ` +
      `${(pulled.ms / 1000).toFixed(1)} s (${(pulled.bytes / 1e6 / (pulled.ms / 1000)).toFixed(0)} MB/s), ${cpus().length} processors for all`,
  )
  t.diagnostic(
    `once: ${upstream.blobs.length - segmented.length} blobs by 1 upstream GET each, the large one in ${segmented.map(({ gets }) => gets).join()} segments that overlap by ` +
      `${segmented.reduce((sum, { overlap }) => sum + overlap, 0)} bytes; ` +
      `upstream bytes / image bytes ${(upstream.bytes / imageBytes(upstream)).toFixed(4)}; ` +
      `manifest GETs ${upstream.manifestGets}; tokens ${upstream.tokens}`,
  )
  printTimes(t, 'processors full', outcome)
  assertOnce(outcome, herd)
  assert.equal(upstream.bytes, imageBytes(upstream))
})

void test('200 cold clients get their first bytes when the upstream gives its', { timeout: 600_000 }, async (t) => {
  const herd = { ...SLOW, clients: 200, isHashed: false }
  const outcome = await pullCold(herd)
  printTimes(t, 'upstream slow', outcome)
  assertOnce(outcome, herd)
})

void test('what cold clients get while it comes hashes to its digest', { timeout: 600_000 }, async (t) => {
  const herd = { ...FAST, clients: 50, isHashed: true }
  const outcome = await pullCold(herd)
  assertOnce(outcome, herd)
  t.diagnostic(`once: ${herd.clients} clients that hash all they get, ${outcome.pulled.pulls.length} bodies right`)
})
