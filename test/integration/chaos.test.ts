/**
 * Random faults, random clients, one truth: a body that looks complete is right, whatever happened; and when the faults
 * end, everything is pulled right, from a clean store. The seed is printed and can be given as SEED.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault, type Step } from '../support/fault-script.ts'
import { startPair, until, type GatewayPair } from '../support/gateway-pair.ts'
import { bytesOf, imageManifest, seededBlob, SeededRandom, type Blob } from '../support/tiny-image.ts'

const KiB = 1024
const MiB = 1024 * KiB
const SEED = process.env['SEED'] ?? String(Math.floor(Math.random() * 1e6))
const BLOBS = 24
const CLIENTS = 150

function randomStep(random: SeededRandom, size: number): Step {
  const at = random.between(0, size)
  const steps = [
    (): Step => fault.none(),
    (): Step => fault.cut(at),
    (): Step => fault.reset(at),
    (): Step => [fault.chunked(), fault.cut(at)],
    (): Step => fault.corrupt(random.between(0, size - 1)),
    (): Step => fault.resize(random.between(-100, 100)),
    (): Step => fault.lieLength(random.between(-100, 100)),
    (): Step => [fault.ignoreRange(), fault.cut(at)],
    (): Step => fault.contentRange(`bytes 0-${size - 1}/${size}`),
    (): Step => fault.status(random.pick([403, 500, 502])),
    (): Step => fault.html(),
    (): Step => fault.gzip(),
    (): Step => fault.delay(random.between(1, 80)),
    (): Step => fault.rate(random.between(1, 20) * MiB),
    (): Step => fault.closeDelimited(),
  ] as const
  return random.pick(steps)()
}

async function pullSomehow(pair: GatewayPair, blob: Blob, random: SeededRandom): Promise<void> {
  const { size } = blob.content
  const from = random.between(0, size - 1)
  const to = random.between(from, size - 1)
  const url = `${pair.gateway.url}/v2/acme/app/blobs/${blob.digest}`
  const ways = [
    { leaveAfter: Infinity },
    { leaveAfter: random.between(1, size) },
    { headers: { range: `bytes=${from}-${to}` } },
    { headers: { range: `bytes=${from}-` } },
  ] as const
  const answer = await ask(url, random.pick(ways)).catch(() => undefined)
  if (answer?.isComplete !== true || answer.status >= 400) return
  const right = bytesOf(blob.content)
  const range = /^bytes (\d+)-(\d+)\//.exec(String(answer.headers['content-range'] ?? ''))
  if (range === null) assert.ok(answer.body.equals(right), `seed ${SEED}: a wrong whole ${blob.digest}`)
  // A range that does not reach the end may be relayed before the whole is verified; it is the client who hashes then.
  else if (Number(range[2]) === size - 1) {
    assert.ok(answer.body.equals(right.subarray(Number(range[1]))), `seed ${SEED}: a wrong end of ${blob.digest}`)
  }
}

test('whatever the upstream does, nothing wrong looks right, and all is well afterwards', async (t) => {
  t.diagnostic(`seed ${SEED}`)
  const random = new SeededRandom(SEED)
  await using pair = await startPair({ upstream: 'fill: { from: 1MiB, complete: onPull }' })
  const { registry, gateway } = pair
  const blobs = Array.from({ length: BLOBS }, (_, index) => seededBlob(`${SEED} ${index}`, random.between(1, 3 * MiB)))
  const config = seededBlob(`${SEED} config`, 200, { mediaType: 'application/vnd.oci.image.config.v1+json' })
  const image = imageManifest(config, blobs.slice(0, BLOBS / 2))
  registry
    .repository('acme/app')
    .add(config, ...blobs)
    .tag('1', image)
  await pair.get('acme/app/manifests/1')
  for (const { digest, content } of blobs) {
    const steps = Array.from({ length: random.between(0, 6) }, () => randomStep(random, content.size))
    registry.script({ kind: 'blob', method: 'GET', reference: digest }, ...steps)
  }
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      await new Promise((resolve) => setTimeout(resolve, random.between(0, 1500)))
      await pullSomehow(pair, random.pick([blobs[0] ?? config, ...blobs]), random)
    }),
  )
  registry.clearScripts()
  for (const blob of blobs) {
    const pull = async (): Promise<boolean> => {
      const answer = await pair.get(`acme/app/blobs/${blob.digest}`).catch(() => undefined)
      return answer?.status === 200 && answer.isComplete && answer.body.equals(bytesOf(blob.content))
    }
    await until(`seed ${SEED}: ${blob.digest} is pulled when the faults have ended`, pull, 15_000)
  }
  await gateway.stop()
  await assertEveryBlobIsRight(join(gateway.data, 'origin'))
  assert.deepEqual(
    gateway.events.filter(({ event }) => event === 'defect.caught' || event === 'store.failed'),
    [],
  )
})

async function assertEveryBlobIsRight(root: string): Promise<void> {
  const names = await readdir(root, { recursive: true })
  const stored = names.filter((name) => name.endsWith('/data'))
  assert.ok(stored.length >= BLOBS)
  for (const name of stored) {
    const hex = createHash('sha256')
      .update(await readFile(join(root, name)))
      .digest('hex')
    assert.ok(name.includes(hex), `seed ${SEED}: ${name} hashes to ${hex}`)
  }
}
