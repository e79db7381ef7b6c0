import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Metrics } from '../../../src/telemetry/metrics.ts'

async function lines(metrics: Metrics, start: string): Promise<string[]> {
  const body = await metrics.render()
  return body.split('\n').filter((line) => line.startsWith(start))
}

describe('metrics', () => {
  test('count requests by upstream, kind, outcome and status, with their time', async () => {
    const metrics = new Metrics({ withProcess: false })
    const hub = metrics.upstream('docker.io')
    for (let n = 0; n < 3; n++) hub.requestDone({ kind: 'blob', outcome: 'hit', status: 200, seconds: 0.004 })
    hub.requestDone({ kind: 'manifest', outcome: 'none', status: Number.NaN, seconds: 70 })
    metrics.upstream('').requestDone({ kind: 'other', outcome: 'none', status: 404, seconds: 0 })
    assert.deepEqual(await lines(metrics, 'entrepot_requests_total'), [
      'entrepot_requests_total{upstream="docker.io",kind="blob",outcome="hit",status="200"} 3',
      'entrepot_requests_total{upstream="docker.io",kind="manifest",outcome="none",status="other"} 1',
      'entrepot_requests_total{upstream="",kind="other",outcome="none",status="404"} 1',
    ])
    const buckets = await lines(metrics, 'entrepot_request_seconds_bucket{le="0.005",upstream="docker.io",kind="blob"')
    assert.deepEqual(
      buckets.map((line) => line.split(' ')[1]),
      ['3'],
    )
  })

  test('count everything else by upstream', async () => {
    const metrics = new Metrics({ withProcess: false })
    const hub = metrics.upstream('docker.io')
    hub.bytesMoved('client', 10)
    hub.bytesMoved('client', 5)
    hub.bytesMoved('upstream', 0)
    hub.upstreamCalled('manifest', 429)
    hub.upstreamCalled('blob', 'unreachable')
    hub.fillStarted()
    hub.fillStarted()
    hub.fillEnded()
    hub.fillResumed()
    hub.commitRejected('digest')
    hub.tokenIssued()
    hub.servedStale('throttled')
    const body = await metrics.render()
    assert.match(metrics.contentType, /^text\/plain/)
    for (const line of [
      'entrepot_bytes_total{upstream="docker.io",direction="client"} 15',
      'entrepot_upstream_requests_total{upstream="docker.io",kind="manifest",code="429"} 1',
      'entrepot_upstream_requests_total{upstream="docker.io",kind="blob",code="unreachable"} 1',
      'entrepot_fills_active{upstream="docker.io"} 1',
      'entrepot_fill_resumes_total{upstream="docker.io"} 1',
      'entrepot_commit_rejected_total{upstream="docker.io",reason="digest"} 1',
      'entrepot_tokens_total{upstream="docker.io"} 1',
      'entrepot_stale_total{upstream="docker.io",reason="throttled"} 1',
    ]) {
      assert.ok(body.includes(`\n${line}\n`), line)
    }
    assert.ok(!body.includes('direction="upstream"'))
  })

  test('of two apps in one process are apart', async () => {
    const [one, two] = [new Metrics({ withProcess: false }), new Metrics({ withProcess: false })]
    one.upstream('a').tokenIssued()
    assert.equal((await lines(one, 'entrepot_tokens_total{')).length, 1)
    assert.equal((await lines(two, 'entrepot_tokens_total{')).length, 0)
  })

  test('stay bounded whatever is asked for', async () => {
    const metrics = new Metrics({ withProcess: false })
    for (let n = 0; n < 2000; n++) metrics.upstream(`host-${n}`).tokenIssued()
    assert.equal((await lines(metrics, 'entrepot_tokens_total{')).length, 501)
    assert.deepEqual(await lines(metrics, 'entrepot_tokens_total{upstream="other"}'), [
      'entrepot_tokens_total{upstream="other"} 1500',
    ])
    assert.equal(metrics.upstream('host-3'), metrics.upstream('host-3'))
  })

  test('watched values are read when somebody looks', async () => {
    const metrics = new Metrics({ withProcess: false })
    let value = 1
    metrics.watch('entrepot_log_dropped', 'Lines dropped', () => value)
    value = 42
    assert.deepEqual(await lines(metrics, 'entrepot_log_dropped '), ['entrepot_log_dropped 42'])
  })

  test('tell of the process and of the lag of its loop', async () => {
    const metrics = new Metrics()
    const body = await metrics.render()
    assert.match(body, /^nodejs_eventloop_lag_p99_seconds /m)
    assert.match(body, /^process_resident_memory_bytes /m)
  })
})
