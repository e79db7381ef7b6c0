import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fault } from '../../support/fault-script.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { startTokenServer, type TokenServerOptions } from '../../support/scripted-token-server.ts'
import { tinyImage } from '../../support/tiny-image.ts'

const ada = { name: 'ada', password: 'sec:ret', pulls: ['acme/*'] }
const basicAda = { Authorization: `Basic ${Buffer.from('ada:sec:ret').toString('base64')}` }
const scope = 'scope=repository:acme/app:pull'

interface TokenBody {
  readonly token?: string
  readonly access_token?: string
  readonly expires_in?: unknown
  readonly refresh_token?: string
}

async function ask(
  url: string,
  init: RequestInit = {},
): Promise<{ readonly status: number; readonly body: TokenBody }> {
  const response = await fetch(url, init)
  const body: unknown = await response.json()
  assert.ok(typeof body === 'object' && body !== null)
  return { status: response.status, body }
}

function form(fields: Readonly<Record<string, string>>): RequestInit {
  return { method: 'POST', body: new URLSearchParams(fields) }
}

/** One GET as `ada` for acme/app. */
async function askUnder(options: TokenServerOptions): Promise<{ readonly status: number; readonly body: TokenBody }> {
  await using server = await startTokenServer({ accounts: [ada], ...options })
  return await ask(`${server.realm}?service=${server.service}&${scope}`, { headers: basicAda })
}

test('a token opens in the registry what it was granted for, until it expires', async () => {
  const clock = new ManualClock()
  await using server = await startTokenServer({
    accounts: [ada],
    anonymousPulls: ['library/*'],
    clock,
    lifetimeSeconds: 60,
  })
  await using registry = await startScriptedRegistry({ auth: server.auth(), publicNeedsToken: true, clock })
  for (const repository of ['acme/app', 'library/tiny', 'other/app'])
    registry.load(tinyImage({ seed: 's', repository }))
  registry.repository('library/tiny').isPrivate = false
  const pull = async (repository: string, token?: string): Promise<number> => {
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` }
    const response = await fetch(`${registry.url}/v2/${repository}/manifests/latest`, { headers })
    await response.arrayBuffer()
    return response.status
  }
  const { body: own } = await ask(`${server.realm}?${scope}&scope=repository:other/app:pull`, { headers: basicAda })
  const { body: anybody } = await ask(`${server.realm}?scope=repository:library/tiny:pull`)
  assert.equal(own.expires_in, 60)
  assert.equal(await pull('acme/app'), 401)
  assert.equal(await pull('acme/app', own.token), 200)
  assert.equal(await pull('acme/app', anybody.token), 401)
  assert.equal(await pull('other/app', own.token), 401)
  assert.equal(await pull('library/tiny'), 401)
  assert.equal(await pull('library/tiny', anybody.token), 200)
  clock.advance(60_000)
  assert.equal(await pull('acme/app', own.token), 401)
  const expired = server.issue({ account: undefined, repositories: new Set(['acme/app']), expiresAt: clock.now() + 1 })
  assert.equal(await pull('acme/app', expired), 200)
  server.tokens.clear()
  assert.equal(await pull('acme/app', expired), 401)
})

test('wrong credentials are 401; missing rights are an empty grant, or a refusal if so configured', async () => {
  await using server = await startTokenServer({ accounts: [ada] })
  const wrong = { headers: { Authorization: `Basic ${Buffer.from('ada:x').toString('base64')}` } }
  assert.equal((await ask(`${server.realm}?${scope}`, wrong)).status, 401)
  const { status, body } = await ask(`${server.realm}?${scope}`)
  assert.equal(status, 200)
  assert.deepEqual(server.tokens.get(body.token ?? '')?.repositories, new Set())
  await using strict = await startTokenServer({ deniedStatus: 403 })
  assert.equal((await ask(`${strict.realm}?${scope}`)).status, 403)
  assert.equal((await ask(`${strict.realm}?service=another`)).status, 400)
})

test('the form is understood: password, then the refresh token it gave', async () => {
  await using server = await startTokenServer({ accounts: [ada], givesRefreshTokens: true })
  const common = { service: server.service, scope: 'repository:acme/app:pull repository:acme/lib:pull,push' }
  const first = await ask(
    server.realm,
    form({ ...common, grant_type: 'password', username: 'ada', password: 'sec:ret' }),
  )
  const grant = server.tokens.get(first.body.token ?? '')
  assert.deepEqual([grant?.account, grant?.repositories], ['ada', new Set(['acme/app', 'acme/lib'])])
  const refresh_token = first.body.refresh_token ?? ''
  const second = await ask(server.realm, form({ ...common, grant_type: 'refresh_token', refresh_token }))
  assert.equal(server.tokens.get(second.body.token ?? '')?.account, 'ada')
  assert.equal((await ask(server.realm, form({ grant_type: 'refresh_token', refresh_token: 'x' }))).status, 401)
  assert.match(server.requests[0]?.body ?? '', /grant_type=password/)
})

test('one method can be missing', async () => {
  await using getOnly = await startTokenServer({ method: 'GET' })
  assert.equal((await ask(getOnly.realm, form({}))).status, 405)
  assert.equal((await ask(getOnly.realm)).status, 200)
  await using postOnly = await startTokenServer({ method: 'POST', refusalStatus: 404 })
  assert.equal((await ask(postOnly.realm)).status, 404)
  assert.equal((await ask(postOnly.realm, form({}))).status, 200)
})

test('the answer can take every shape that is out there', async () => {
  const other = await askUnder({ tokenField: 'access_token', tokenBytes: 4000 })
  assert.deepEqual([other.body.token, other.body.access_token?.length], [undefined, 4000])
  const both = await askUnder({ tokenField: 'both' })
  assert.equal(both.body.token, both.body.access_token)
  assert.ok(!('expires_in' in (await askUnder({ expiresIn: 'omit' })).body))
  for (const expiresIn of [0, -1, 1e12, '300', null]) {
    assert.equal((await askUnder({ expiresIn })).body.expires_in, expiresIn)
  }
})

test('faults work here too, and down is down', async () => {
  await using server = await startTokenServer()
  server.script({ kind: 'token' }, fault.status(503), fault.html(), fault.status(200, {}, '{}'), fault.hugeBody(1e6))
  const answers: unknown[] = []
  for (let request = 0; request < 4; request++) {
    const response = await fetch(server.realm)
    answers.push([response.status, (await response.text()).length])
  }
  assert.deepEqual(answers, [
    [503, 0],
    [200, 43],
    [200, 2],
    [200, 1e6],
  ])
  await server.close()
  await assert.rejects(fetch(server.realm), { message: 'fetch failed' })
})
