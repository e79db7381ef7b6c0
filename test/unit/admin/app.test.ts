import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createAdminApp, type AdminAppOptions } from '../../../src/admin/app.ts'

async function ask(path: string, options: Partial<AdminAppOptions> = {}, authorization?: string) {
  const app = createAdminApp({
    token: undefined,
    notReady: () => undefined,
    metrics: () => Promise.resolve('entrepot_up 1\n'),
    ...options,
  })
  const reply = await app.request(path, { headers: authorization === undefined ? {} : { authorization } })
  return { status: reply.status, headers: reply.headers, text: await reply.text() }
}

test('/livez is 200 whatever else is wrong', async () => {
  assert.equal((await ask('/livez', { notReady: () => 'draining', token: 't' })).status, 200)
})

test('/readyz says why it is not ready', async () => {
  assert.equal((await ask('/readyz', { token: 't' })).status, 200)
  const reply = await ask('/readyz', { notReady: () => 'draining' })
  assert.equal(reply.status, 503)
  assert.deepEqual(JSON.parse(reply.text), { status: 'not ready', reason: 'draining' })
})

test('/metrics is Prometheus text', async () => {
  const reply = await ask('/metrics')
  assert.equal(reply.status, 200)
  assert.match(reply.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
  assert.equal(reply.text, 'entrepot_up 1\n')
  assert.equal(reply.headers.get('cache-control'), 'no-store')
})

test('everything but the probes needs the token where there is one', async () => {
  for (const given of [
    undefined,
    '',
    'Bearer',
    'Bearer x',
    'Bearer secretx',
    'Basic secret',
    'secret',
    'Bearer secret x',
  ]) {
    const reply = await ask('/metrics', { token: 'secret' }, given)
    assert.equal(reply.status, 401, String(given))
    assert.match(reply.headers.get('www-authenticate') ?? '', /^Bearer/)
  }
  assert.equal((await ask('/metrics', { token: 'secret' }, 'Bearer secret')).status, 200)
  assert.equal((await ask('/metrics', { token: 'secret' }, 'bearer  secret')).status, 200)
})

test('an unknown path is 404, and only for those who may know', async () => {
  assert.equal((await ask('/nothing')).status, 404)
  assert.equal((await ask('/nothing', { token: 'secret' })).status, 401)
})

test('a metrics failure is 500 without its text', async () => {
  const reply = await ask('/metrics', { metrics: () => Promise.reject(new Error('canary')) })
  assert.equal(reply.status, 500)
  assert.doesNotMatch(reply.text, /canary/)
})
