/** Ranges of blobs that are cold, on their way in, and here: the same bytes each time, and never by way of the front. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent } from 'node:http'
import { ask, type Answer } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startScriptedRegistry, type ScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway, type TestGateway } from '../support/start-gateway.ts'
import { seededBlob, SeededRandom, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB
const SEED = process.env['SEED'] ?? '1'
const RANGES = 2_000

interface Pair extends AsyncDisposable {
  readonly registry: ScriptedRegistry
  readonly gateway: TestGateway
}

async function start(blobs: readonly Blob[]): Promise<Pair> {
  const registry = await startScriptedRegistry()
  registry.repository('acme/app').add(...blobs)
  const gateway = await startTestGateway({ upstreams: { origin: `url: ${registry.url}` }, default: 'origin' })
  return {
    registry,
    gateway,
    [Symbol.asyncDispose]: async () => {
      await gateway[Symbol.asyncDispose]()
      await registry.close()
    },
  }
}

interface Span {
  readonly from: number
  readonly to: number
}

function randomSpans(random: SeededRandom, size: number): Span[] {
  return Array.from({ length: random.between(0, 9) < 3 ? random.between(2, 5) : 1 }, () => {
    const from = random.between(0, size - 1)
    return { from, to: Math.min(size, from + random.between(1, random.between(0, 4) === 0 ? 300 * KiB : 4 * KiB)) }
  })
}

function headerOf(spans: readonly Span[]): string {
  return `bytes=${spans.map(({ from, to }) => `${from}-${to - 1}`).join(',')}`
}

/** The bytes of each range in an answer, in order; a whole body is cut where the client would cut it. */
function partsOf(answer: Answer, spans: readonly Span[]): Buffer[] {
  if (answer.status === 200) return spans.map(({ from, to }) => answer.body.subarray(from, to))
  const type = answer.headers['content-type'] ?? ''
  const boundary = /^multipart\/byteranges; boundary=(.+)$/.exec(type)?.[1]
  if (boundary === undefined) return [answer.body]
  const parts: Buffer[] = []
  let at = answer.body.indexOf(`--${boundary}\r\n`)
  while (at !== -1) {
    const start = answer.body.indexOf('\r\n\r\n', at) + 4
    const next = answer.body.indexOf(`\r\n--${boundary}`, start)
    parts.push(answer.body.subarray(start, next))
    at = answer.body.indexOf(`--${boundary}\r\n`, next)
  }
  return parts
}

test(`${RANGES} random ranges of cold, filling and complete blobs are byte-equal`, async (t) => {
  const random = new SeededRandom(SEED)
  const blobs = Array.from({ length: 20 }, (_, index) => seededBlob(`${SEED} ${index}`, random.between(1, 3 * MiB)))
  await using pair = await start(blobs)
  const { registry, gateway } = pair
  registry.scriptAlways({ kind: 'blob' }, fault.rate(30 * MiB))
  const agent = new Agent({ keepAlive: true, maxSockets: 24 })
  const statuses = new Map<number, number>()
  const askRange = async (): Promise<void> => {
    const blob = blobs[random.between(0, blobs.length - 1)]
    if (blob === undefined) return
    const { size } = blob.content
    const spans = randomSpans(random, size)
    const url = `${gateway.url}/v2/acme/app/blobs/${blob.digest}`
    const answer = await ask(url, { headers: { range: headerOf(spans) }, agent })
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
    assert.ok(answer.status === 206 || answer.status === 200, String(answer.status))
    assert.equal(answer.body.length, Number(answer.headers['content-length']))
    const parts = partsOf(answer, spans)
    assert.equal(parts.length, spans.length)
    for (const [index, { from, to }] of spans.entries()) {
      assert.ok(parts[index]?.equals(blob.content.slice(from, to)), `${blob.digest} ${from}-${to}`)
    }
  }
  for (let done = 0; done < RANGES; done += 50) {
    // Now and then somebody pulls one whole, so that ranges meet fills under way and blobs that are complete.
    const whole = blobs[random.between(0, blobs.length - 1)]
    const pull =
      whole && done % 200 === 0 ? ask(`${gateway.url}/v2/acme/app/blobs/${whole.digest}`, { agent }) : undefined
    await Promise.all(Array.from({ length: 50 }, askRange))
    if (pull !== undefined)
      assert.ok((await pull).body.equals(whole?.content.slice(0, whole.content.size) ?? Buffer.alloc(0)))
  }
  agent.destroy()
  t.diagnostic(`seed ${SEED}: ${RANGES} ranges, statuses ${JSON.stringify(Object.fromEntries(statuses))}`)
})

test('a range far ahead of the front is answered without waiting for the front', async (t) => {
  const blob = seededBlob('far', 64 * MiB)
  await using pair = await start([blob])
  const { registry, gateway } = pair
  // The front would take 64 s at this rate.
  registry.scriptAlways({ kind: 'blob' }, fault.rate(1 * MiB))
  const url = `${gateway.url}/v2/acme/app/blobs/${blob.digest}`
  const front = ask(url, { leaveAfter: 2 * MiB })
  const from = 60 * MiB
  const far = await ask(url, { headers: { range: `bytes=${from}-${from + 64 * KiB - 1}` } })
  assert.equal(far.status, 206)
  assert.equal(far.headers['content-range'], `bytes ${from}-${from + 64 * KiB - 1}/${64 * MiB}`)
  assert.ok(far.body.equals(blob.content.slice(from, from + 64 * KiB)))
  t.diagnostic(`a range at 60 MiB of a blob at 1 MiB/s: first byte after ${far.firstByteMs.toFixed(0)} ms`)
  await front
})

test('ranges alone fetch what was asked, not the blob around it', async (t) => {
  const blob = seededBlob('lazy', 64 * MiB)
  await using pair = await start([blob])
  const { registry, gateway } = pair
  const random = new SeededRandom(SEED)
  const url = `${gateway.url}/v2/acme/app/blobs/${blob.digest}`
  const size = 256 * KiB
  const starts = Array.from({ length: 16 }, () => random.between(0, blob.content.size / size - 2) * size)
  const answers = await Promise.all(
    starts.map((from) => ask(url, { headers: { range: `bytes=${from}-${from + size - 1}` } })),
  )
  for (const [index, answer] of answers.entries()) {
    const from = starts[index] ?? 0
    assert.ok(answer.status === 206 && answer.body.equals(blob.content.slice(from, from + size)))
  }
  const asked = new Set(starts).size * size
  const ratio = registry.trafficOf(blob.digest) / asked
  t.diagnostic(`bytes fetched / bytes asked: ${ratio.toFixed(2)}`)
  assert.ok(ratio <= 1.2, `${ratio}`)
})

test('ranges that cannot be are 416 with the length, and odd ones are ignored', async () => {
  const blob = seededBlob('odd', 1000)
  await using pair = await start([blob])
  const url = `${pair.gateway.url}/v2/acme/app/blobs/${blob.digest}`
  const table: readonly [range: string, status: number, contentRange: string | undefined][] = [
    ['bytes=0-0', 206, 'bytes 0-0/1000'],
    ['bytes=-5', 206, 'bytes 995-999/1000'],
    ['bytes=990-2000', 206, 'bytes 990-999/1000'],
    ['bytes=0-', 206, 'bytes 0-999/1000'],
    ['bytes=1000-', 416, 'bytes */1000'],
    ['bytes=5-2', 200, undefined],
    ['items=0-1', 200, undefined],
  ]
  for (const round of ['cold', 'warm']) {
    for (const [range, status, contentRange] of table) {
      const answer = await ask(url, { headers: { range } })
      assert.deepEqual([answer.status, answer.headers['content-range']], [status, contentRange], `${round} ${range}`)
    }
  }
})
