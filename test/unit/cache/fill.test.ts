/** A fill against a real store and a source under the test's hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fill, type FillEvent, type FillSource } from '../../../src/cache/fill.ts'
import { GatewayError } from '../../../src/errors.ts'
import { FsStore } from '../../../src/store/fs/fs-store.ts'
import { Hasher } from '../../../src/store/fs/hasher.ts'
import { temporaryFolder } from '../../support/temporary-folder.ts'
import { bytesOf, seededBlob, type Blob } from '../../support/tiny-image.ts'

const KiB = 1024
const SIZE = 600 * KiB
const policy = {
  connections: 4,
  parallelFromBytes: 32 * 1024 * KiB,
  segmentBytes: 8 * 1024 * KiB,
  urgentConnections: 16,
  nearBytes: 64 * KiB,
}

interface Bench extends AsyncDisposable {
  readonly fill: Fill
  readonly blob: Blob
  readonly events: FillEvent[]
  /** Lets bytes up to this offset come. */
  readonly allow: (to: number) => void
  readonly store: FsStore
  opened: number
}

interface BenchOptions {
  readonly graceMs?: number
  readonly onVerified?: () => Promise<void>
  readonly reserve?: (bytes: number) => Promise<void>
  /** What the upstream announces. */
  readonly announces?: number | undefined
  readonly knows?: number
  /** The first request is never answered. */
  readonly hangsFirst?: boolean
  readonly hedgeAfterMs?: number
}

async function openBench(options: BenchOptions = {}): Promise<Bench> {
  const folder = await temporaryFolder()
  const hasher = new Hasher()
  const store = await FsStore.open({ root: folder.path, hasher })
  const blob = seededBlob('fill', SIZE)
  const bytes = bytesOf(blob.content)
  let allowed = 0
  let news = Promise.withResolvers<void>()
  const source: FillSource = {
    open: (range, signal) => {
      bench.opened++
      if (options.hangsFirst === true && bench.opened === 1) {
        const { promise, reject } = Promise.withResolvers<never>()
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
        return promise
      }
      const end = range.to ?? SIZE
      async function* body(): AsyncGenerator<Uint8Array, void, undefined> {
        for (let at = range.from; at < end;) {
          if (at >= allowed) {
            const gone = new Promise<never>((_, reject) => {
              signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
            })
            await Promise.race([news.promise, gone])
            continue
          }
          const to = Math.min(end, allowed, at + 16 * KiB)
          yield bytes.subarray(at, to)
          at = to
        }
      }
      const size = 'announces' in options ? options.announces : SIZE
      return Promise.resolve({ from: range.from, to: end, size, body: body(), cancel: () => undefined })
    },
  }
  const events: FillEvent[] = []
  const fill = new Fill({
    digest: blob.digest,
    incoming: await store.openIncoming(blob.digest),
    source,
    size: options.knows,
    policy,
    graceMs: options.graceMs ?? 1000,
    random: () => 0.5,
    ...(options.hedgeAfterMs === undefined ? {} : { hedgeAfterMs: options.hedgeAfterMs }),
    reserve: options.reserve ?? (() => Promise.resolve()),
    onVerified: options.onVerified ?? (() => Promise.resolve()),
    onEvent: (event) => events.push(event),
  })
  const bench: Bench = {
    fill,
    blob,
    events,
    store,
    opened: 0,
    allow: (to) => {
      allowed = to
      news.resolve()
      news = Promise.withResolvers<void>()
    },
    [Symbol.asyncDispose]: async () => {
      await fill.stop(new GatewayError('OVERLOADED', 'the test is over'))
      await store.close()
      await hasher.close()
      await folder[Symbol.asyncDispose]()
    },
  }
  return bench
}

test('closing a reader settles its pending read at once, and leaves others alone', async () => {
  await using bench = await openBench()
  const size = await bench.fill.sized(AbortSignal.timeout(2000))
  const [one, other] = [bench.fill.reader([{ from: 0, to: size }]), bench.fill.reader([{ from: 0, to: size }])]
  const pending = one.read(Buffer.alloc(1000), 0)
  const waiting = other.read(Buffer.alloc(1000), 0)
  await one.close()
  await assert.rejects(pending, /closed/)
  bench.allow(SIZE)
  assert.ok((await waiting) > 0)
  await other.close()
})

test('a fill that nobody ever reads is stopped by itself', async () => {
  await using bench = await openBench({ knows: SIZE })
  await assert.rejects(bench.fill.done, /every reader left/)
  assert.equal(bench.opened, 0)
  assert.deepEqual(bench.events, [{ kind: 'stopped', heldBytes: 0 }])
})

test('a range that its only reader left is stopped after the grace time, and its bytes are kept', async () => {
  await using bench = await openBench({ knows: SIZE, graceMs: 50 })
  bench.allow(64 * KiB)
  const reader = bench.fill.reader([{ from: 0, to: 500 * KiB }])
  assert.ok((await reader.read(Buffer.alloc(1000), 0)) > 0)
  await reader.close()
  await assert.rejects(bench.fill.done, /every reader left/)
  assert.ok(bench.fill.isAbandoned)
  await using again = await bench.store.openIncoming(bench.blob.digest).then((incoming) => ({
    held: incoming.held.bytes,
    [Symbol.asyncDispose]: () => incoming.keep(),
  }))
  assert.ok(again.held > 0)
})

test('the tail waits for the digest, and what is not the tail does not', async () => {
  await using bench = await openBench()
  const size = await bench.fill.sized(AbortSignal.timeout(2000))
  const reader = bench.fill.reader([{ from: 0, to: size }])
  bench.allow(SIZE - 1)
  const target = Buffer.alloc(SIZE)
  let at = 0
  while (at < SIZE - 256 * KiB) at += await reader.read(target.subarray(at), at)
  assert.equal(at, SIZE - 256 * KiB)
  const tail = reader.read(target.subarray(at), at)
  assert.equal(await Promise.race([tail, sleep(100, 'waits')]), 'waits')
  bench.allow(SIZE)
  while (at < SIZE) at += at === SIZE - 256 * KiB ? await tail : await reader.read(target.subarray(at), at)
  assert.ok(target.equals(bytesOf(bench.blob.content)))
  await reader.close()
})

test('a length without room for it fails the fill before a byte is written', async () => {
  const full = new GatewayError('STORE_FULL', 'no room')
  await using bench = await openBench({ reserve: () => Promise.reject(full) })
  bench.allow(SIZE)
  await assert.rejects(bench.fill.sized(AbortSignal.timeout(2000)), full)
  await assert.rejects(bench.fill.done, full)
})

test('a body of no announced length has its length when it has ended', async () => {
  await using bench = await openBench({ announces: undefined })
  const size = bench.fill.sized(AbortSignal.timeout(5000))
  bench.allow(SIZE)
  assert.equal(await size, SIZE)
  await bench.fill.done
})

test('a first byte that does not come is asked for a second time', async () => {
  await using bench = await openBench({ knows: SIZE, hangsFirst: true, hedgeAfterMs: 20 })
  bench.allow(SIZE)
  const reader = bench.fill.reader([{ from: 0, to: SIZE }])
  assert.ok((await reader.read(Buffer.alloc(1000), 0)) > 0)
  await bench.fill.done
  assert.equal(bench.opened, 2)
  await reader.close()
})
