import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { UpstreamEvent } from '../../../src/upstream/options.ts'
import { fault } from '../../support/fault-script.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { seededBlob, tinyImage } from '../../support/tiny-image.ts'
import { bytesOfStream, openOn, referenceOf, rejectsWith, repositoryOf, signal, type Opened } from './opened.ts'

const image = tinyImage({ seed: 'endpoints', repository: 'acme/app' })
const app = repositoryOf('acme/app')
const latest = referenceOf('latest')
const { digest } = image.root

function byTag({ upstream }: Opened): Promise<unknown> {
  return upstream.headManifest(app, latest, { signal })
}

function byDigest({ upstream }: Opened): Promise<unknown> {
  return upstream.fetchManifest(app, digest, { signal })
}

function ofType(events: readonly UpstreamEvent[], type: UpstreamEvent['type']): readonly UpstreamEvent[] {
  return events.filter((event) => event.type === type)
}

describe('retries', () => {
  it('a 503, a reset or a refused connection is tried three times in all', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    registry.script({}, fault.status(503), fault.reset())
    await byTag(opened)
    assert.equal(registry.count(), 3)
    await using failing = openOn(registry.url)
    registry.scriptAlways({}, fault.status(503))
    await rejectsWith('UPSTREAM_ERROR', byTag(failing), /HEAD scripted\/acme\/app:latest: 503 after 3 tries/)
    assert.equal(registry.count(), 6)
    await using refusing = openOn(registry.url)
    await registry.close()
    await rejectsWith('UPSTREAM_UNREACHABLE', byTag(refusing), /connect \(ECONNREFUSED\) after 3 tries/)
  })

  it('a 4xx is never tried again', async () => {
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url)
    for (const status of [400, 404, 418]) {
      registry.clearRequests()
      registry.script({ method: 'GET' }, fault.status(status))
      await assert.rejects(byDigest(opened))
      assert.equal(registry.count(), 1)
    }
  })

  it('when everything fails, retries are a small share of the requests', async () => {
    await using registry = await startScriptedRegistry()
    registry.scriptAlways({}, fault.status(503))
    await using opened = openOn([registry.url], { clock: new ManualClock() })
    for (let calls = 0; calls < 30; calls++) await assert.rejects(byTag(opened))
    assert.ok(registry.count() <= 30 + 10 + 3, String(registry.count()))
  })

  it('silence is not tried again, and is bounded', { timeout: 20_000 }, async () => {
    await using registry = await startScriptedRegistry()
    registry.scriptAlways({}, fault.stall())
    await using opened = openOn(registry.url, { timeouts: { headersMs: 100 } })
    await rejectsWith('UPSTREAM_UNREACHABLE', byTag(opened), /timeout/)
    assert.equal(registry.count(), 1)
  })

  it('a body that trickles for ever is bounded too', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    registry.scriptAlways({}, fault.rate(50))
    await using opened = openOn(registry.url, { timeouts: { callMs: 200 } })
    await rejectsWith('UPSTREAM_UNREACHABLE', byDigest(opened), /not done within 200 ms/)
  })
})

describe('429', () => {
  it('pauses every call until Retry-After, without a further request', async () => {
    const clock = new ManualClock()
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url, { clock })
    registry.script({}, fault.tooManyRequests(30))
    await assert.rejects(byTag(opened), { code: 'UPSTREAM_THROTTLED', retryAfterMs: 30_000 })
    clock.advance(10_000)
    await assert.rejects(byDigest(opened), { code: 'UPSTREAM_THROTTLED', retryAfterMs: 20_000 })
    assert.equal(registry.count(), 1)
    clock.advance(20_000)
    await byTag(opened)
    assert.equal(ofType(opened.events, 'throttled').length, 1)
  })

  it('without Retry-After the pause doubles; a day is cut to a minute', async () => {
    const clock = new ManualClock()
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url, { clock })
    registry.script({}, fault.tooManyRequests(), fault.tooManyRequests(), fault.tooManyRequests(86_400))
    for (const expected of [1_000, 2_000, 60_000]) {
      await assert.rejects(byTag(opened), { code: 'UPSTREAM_THROTTLED', retryAfterMs: expected })
      clock.advance(expected)
    }
  })

  it('503 with Retry-After pauses as well, and is what others are told meanwhile', async () => {
    const clock = new ManualClock()
    await using registry = await startScriptedRegistry()
    await using opened = openOn(registry.url, { clock })
    registry.script({}, fault.status(503, { 'Retry-After': '5' }))
    await assert.rejects(byTag(opened), { code: 'UPSTREAM_ERROR', retryAfterMs: 5_000 })
    await assert.rejects(byTag(opened), { code: 'UPSTREAM_ERROR', retryAfterMs: 5_000 })
    assert.equal(registry.count(), 1)
  })

  it('a sinking pull budget stops background GETs first; HEADs and clients go on', async () => {
    let remaining = 100
    await using registry = await startScriptedRegistry({
      headers: () => ({ 'RateLimit-Limit': '100;w=21600', 'RateLimit-Remaining': `${remaining};w=21600` }),
    })
    registry.load(image)
    await using opened = openOn(registry.url)
    const background = { signal, priority: 'background' } as const
    await opened.upstream.fetchManifest(app, digest, background)
    remaining = 20
    await opened.upstream.headManifest(app, latest, background)
    registry.clearRequests()
    await rejectsWith('UPSTREAM_THROTTLED', opened.upstream.fetchManifest(app, digest, background))
    assert.equal(registry.count(), 0)
    await opened.upstream.headManifest(app, latest, background)
    await byDigest(opened)
  })
})

describe('endpoints', () => {
  it('fail over in order, on refused connections and on 5xx', async () => {
    await using dead = await startScriptedRegistry()
    await using sick = await startScriptedRegistry()
    await using well = await startScriptedRegistry()
    well.load(image)
    sick.scriptAlways({}, fault.status(502))
    await dead.close()
    await using opened = openOn([dead.url, sick.url, well.url])
    await byTag(opened)
    assert.deepEqual([sick.count(), well.count()], [1, 1])
  })

  it('a mirror that may only pull never answers a tag, and its 404 is not the answer', async () => {
    await using mirror = await startScriptedRegistry()
    await using primary = await startScriptedRegistry()
    primary.load(image)
    mirror.repository('acme/app').tag('latest', tinyImage({ seed: 'stale', repository: 'acme/app' }).root)
    const capabilities = [['pull'], ['resolve', 'pull']] as const
    await using opened = openOn([mirror.url, primary.url], { capabilities })
    await byTag(opened)
    assert.equal(mirror.count(), 0)
    await byDigest(opened)
    assert.deepEqual([mirror.count(), primary.count()], [1, 2])
    await primary.close()
    await rejectsWith('UPSTREAM_UNREACHABLE', byDigest(opened))
    await rejectsWith('UPSTREAM_UNREACHABLE', byTag(opened))
  })

  it('a 404 of an endpoint that may resolve is final', async () => {
    await using first = await startScriptedRegistry()
    await using second = await startScriptedRegistry()
    second.load(image)
    await using opened = openOn([first.url, second.url])
    await rejectsWith('NAME_UNKNOWN', byDigest(opened))
    assert.equal(second.count(), 0)
  })

  it('a base path is kept, with v2 put behind it once', async () => {
    await using registry = await startScriptedRegistry()
    for (const [base, path] of [
      ['/', '/v2/acme/app/manifests/latest'],
      ['/api/docker/remote/', '/api/docker/remote/v2/acme/app/manifests/latest'],
      ['/v2/proxy', '/v2/proxy/acme/app/manifests/latest'],
    ] as const) {
      await using opened = openOn(`${registry.url}${base}`)
      await assert.rejects(byTag(opened))
      assert.equal(registry.requests.at(-1)?.path, path)
    }
  })

  it('fastest first by what was measured', async () => {
    await using slow = await startScriptedRegistry()
    await using quick = await startScriptedRegistry()
    for (const each of [slow, quick]) each.load(image)
    slow.scriptAlways({}, fault.delay(400))
    await using opened = openOn([slow.url, quick.url], { order: 'fastest' })
    for (let calls = 0; calls < 5; calls++) await byTag(opened)
    assert.deepEqual([slow.count(), quick.count()], [1, 4])
  })

  it('a dead endpoint is answered for at once by its breaker, and found again by one probe', async () => {
    const clock = new ManualClock()
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url, { clock, random: () => 0.5 })
    await registry.close()
    for (let calls = 0; calls < 5; calls++) await rejectsWith('UPSTREAM_UNREACHABLE', byTag(opened))
    assert.equal(ofType(opened.events, 'endpoint.opened').length, 1)
    await registry.listen()
    await assert.rejects(byTag(opened), { code: 'UPSTREAM_UNREACHABLE', retryAfterMs: 2_000 })
    assert.equal(registry.count(), 0)
    clock.advance(2_000)
    registry.script({}, fault.delay(30))
    const results = await Promise.allSettled([byTag(opened), byTag(opened), byTag(opened)])
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
    assert.equal(registry.count(), 1)
    assert.equal(ofType(opened.events, 'endpoint.closed').length, 1)
  })

  it('a CDN that is down does not close the way to the registry', async () => {
    await using registry = await startScriptedRegistry({ cdn: {} })
    registry.load(image)
    await registry.cdn?.close()
    await using opened = openOn(registry.url)
    const [layer] = image.blobs
    assert.ok(layer !== undefined)
    for (let calls = 0; calls < 8; calls++) {
      await rejectsWith(
        'UPSTREAM_UNREACHABLE',
        opened.upstream.openBlob(app, layer.digest, { range: { from: 0, to: undefined }, session: {}, signal }),
      )
    }
    await byTag(opened)
    assert.deepEqual(ofType(opened.events, 'endpoint.opened'), [])
  })

  it('blobs that wait do not keep manifests waiting; more calls than connections queue', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url, { connections: 2, timeouts: { queueMs: 100, blobHeadersMs: 2_000 } })
    const [layer] = image.blobs
    assert.ok(layer !== undefined)
    registry.scriptAlways({ kind: 'blob' }, fault.stall())
    const abort = new AbortController()
    const held = [1, 2].map(() =>
      opened.upstream.openBlob(app, layer.digest, {
        range: { from: 0, to: undefined },
        session: {},
        signal: abort.signal,
      }),
    )
    await registry.arrived({ kind: 'blob' }, 2)
    await rejectsWith(
      'OVERLOADED',
      opened.upstream.openBlob(app, layer.digest, { range: { from: 0, to: undefined }, session: {}, signal }),
    )
    await byTag(opened)
    abort.abort(new Error('enough'))
    for (const each of held) await assert.rejects(each, { message: 'enough' })
  })
})

describe('limits', () => {
  it('requests beyond the rate wait their turn, and are turned away when that takes too long', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url, { requestsPerSecond: 20, timeouts: { queueMs: 300 } })
    const startedAt = performance.now()
    const results = await Promise.allSettled(Array.from({ length: 40 }, () => byTag(opened)))
    const turnedAway = results.filter(({ status }) => status === 'rejected').length
    // 20 at once, and as many as the queue's time lets in: six on an idle machine, more where starting them takes long.
    assert.ok(turnedAway >= 1 && turnedAway <= 15, String(turnedAway))
    assert.ok(performance.now() - startedAt >= 200)
  })

  it('bytes of blobs keep to the rate of the upstream', async () => {
    await using registry = await startScriptedRegistry()
    const blob = seededBlob('paced', 300_000)
    registry.repository('acme/app').add(blob)
    await using opened = openOn(registry.url, { bytesPerSecond: 200_000 })
    const startedAt = performance.now()
    const range = { from: 0, to: undefined }
    const stream = await opened.upstream.openBlob(app, blob.digest, { range, session: {}, signal })
    assert.equal((await bytesOfStream(stream)).length, 300_000)
    assert.ok(performance.now() - startedAt >= 450)
  })
})
