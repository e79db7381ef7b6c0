import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { CredentialRule } from '../../../src/upstream/credentials.ts'
import type { UpstreamEvent } from '../../../src/upstream/options.ts'
import { parseToken } from '../../../src/upstream/token.ts'
import { fault } from '../../support/fault-script.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { startScriptedRegistry, type RegistryOptions, type ScriptedRegistry } from '../../support/scripted-registry.ts'
import {
  startTokenServer,
  type ScriptedTokenServer,
  type TokenServerOptions,
} from '../../support/scripted-token-server.ts'
import { tinyImage } from '../../support/tiny-image.ts'
import { openOn, referenceOf, rejectsWith, repositoryOf, secret, signal, type Opened } from './opened.ts'

const alice = { name: 'alice', password: 'alice-canary', pulls: ['**'] }
const bob = { name: 'bob', password: 'bob-canary', pulls: ['team/**'] }
const images = ['acme/app', 'acme/other', 'team/tool'].map((repository) => tinyImage({ seed: repository, repository }))
const latest = referenceOf('latest')
const app = repositoryOf('acme/app')

interface World extends Opened {
  readonly registry: ScriptedRegistry
  readonly tokens: ScriptedTokenServer
}

interface WorldOptions {
  readonly tokens?: TokenServerOptions
  readonly registry?: Omit<RegistryOptions, 'auth'>
  readonly credentials?: readonly CredentialRule[]
  readonly realms?: readonly string[]
  readonly clock?: ManualClock
  readonly postTokens?: boolean
}

async function startWorld(options: WorldOptions = {}): Promise<World> {
  const clock = options.clock === undefined ? {} : { clock: options.clock }
  const tokens = await startTokenServer({ accounts: [alice, bob], ...clock, ...options.tokens })
  const registry = await startScriptedRegistry({ auth: tokens.auth(), ...clock, ...options.registry })
  registry.load(...images)
  const {
    credentials = [{ source: secret('alice', 'alice-canary') }],
    realms = [tokens.host],
    postTokens = false,
  } = options
  const opened = openOn(registry.url, { credentials, realms, postTokens, ...clock })
  const dispose = async (): Promise<void> => {
    await opened.upstream.close()
    await registry.close()
    await tokens.close()
  }
  return { ...opened, registry, tokens, [Symbol.asyncDispose]: dispose }
}

function pull({ upstream }: Opened, repository = app): Promise<unknown> {
  return upstream.headManifest(repository, latest, { signal })
}

function rejections(events: readonly UpstreamEvent[]): readonly UpstreamEvent[] {
  return events.filter(({ type }) => type === 'credential.rejected')
}

describe('tokens', () => {
  it('one challenge, one exchange, and no further 401 for that repository', async () => {
    await using world = await startWorld()
    for (let calls = 0; calls < 3; calls++) await pull(world)
    assert.equal(world.tokens.count(), 1)
    assert.equal(world.registry.count({ status: 401 }), 1)
    const [request] = world.tokens.requests
    assert.deepEqual(Object.fromEntries(request?.query ?? []), {
      service: 'scripted-registry',
      scope: 'repository:acme/app:pull',
    })
    assert.equal(request?.headers['authorization'], `Basic ${Buffer.from('alice:alice-canary').toString('base64')}`)
  })

  it('what one repository taught is foreseen for the next', async () => {
    await using world = await startWorld()
    await pull(world)
    await pull(world, repositoryOf('acme/other'))
    assert.equal(world.registry.count({ status: 401 }), 1)
    assert.equal(world.tokens.count(), 2)
  })

  it('200 calls at once cause one exchange', async () => {
    await using world = await startWorld()
    await Promise.all(Array.from({ length: 200 }, () => pull(world)))
    assert.equal(world.tokens.count(), 1)
  })

  it('a caller that gives up does not fail the exchange for the others', async () => {
    await using world = await startWorld()
    world.tokens.script({}, fault.delay(50))
    const abort = new AbortController()
    const given = world.upstream.headManifest(app, latest, { signal: abort.signal })
    const other = pull(world)
    await world.tokens.arrived({})
    abort.abort(new Error('enough'))
    await assert.rejects(given, { message: 'enough' })
    await other
    assert.equal(world.tokens.count(), 1)
  })

  it('a revoked token is replaced once', async () => {
    await using world = await startWorld()
    await pull(world)
    world.tokens.tokens.clear()
    await pull(world)
    assert.equal(world.tokens.count(), 2)
    assert.equal(world.registry.count({ status: 401 }), 2)
  })

  it('an empty grant is a denial after one fresh token, not a loop', async () => {
    await using world = await startWorld({ credentials: [{ source: secret('bob', 'bob-canary') }] })
    await rejectsWith('UPSTREAM_DENIED', pull(world))
    assert.equal(world.tokens.count(), 1)
    assert.equal(world.registry.count(), 2)
    await pull(world, repositoryOf('team/tool'))
  })

  it('a token is refreshed before it expires, and kept while the token server is away', async () => {
    const clock = new ManualClock()
    await using world = await startWorld({ clock })
    await pull(world)
    clock.advance(269_000)
    await pull(world)
    assert.equal(world.tokens.count(), 1)
    clock.advance(2_000)
    world.tokens.script({}, fault.reset())
    await pull(world)
    assert.equal(world.tokens.count(), 2)
    await pull(world)
    assert.equal(world.tokens.count(), 3)
    await world.tokens.close()
    clock.advance(301_000)
    await rejectsWith('UPSTREAM_UNREACHABLE', pull(world), /token from/)
  })

  it('a clock that is set back or forward costs one exchange at most', async () => {
    const clock = new ManualClock()
    await using world = await startWorld({ clock })
    await pull(world)
    clock.advance(-3_600_000)
    await pull(world)
    clock.advance(10 * 365 * 86_400_000)
    await pull(world)
    assert.equal(world.tokens.count(), 2)
  })

  it('access_token, long tokens and odd lifetimes are taken', async () => {
    for (const tokens of [
      { tokenField: 'access_token', tokenBytes: 4_000 },
      { expiresIn: 'omit' },
      { expiresIn: '300' },
      { expiresIn: -1 },
    ] satisfies TokenServerOptions[]) {
      await using world = await startWorld({ tokens })
      await pull(world)
      await pull(world)
      assert.equal(world.tokens.count(), 1)
    }
  })

  it('no token, a page, a huge reply and a redirect are refused, and the password is never sent as a token', async () => {
    await using world = await startWorld()
    const steps = [
      fault.status(200, {}, '{}'),
      fault.html(),
      fault.hugeBody(200_000),
      fault.status(200, {}, '{"token":"a b"}'),
    ]
    for (const step of steps) {
      world.tokens.clearScripts()
      world.tokens.scriptAlways({}, step)
      await rejectsWith('UPSTREAM_INVALID', pull(world))
    }
    world.tokens.clearScripts()
    world.tokens.scriptAlways({}, fault.redirect('http://127.0.0.1:1/token'))
    await rejectsWith('UPSTREAM_INVALID', pull(world), /307/)
    assert.ok(world.registry.requests.every(({ headers }) => headers['authorization'] === undefined))
  })

  it('POST first where asked for, GET where POST is not known', async () => {
    for (const refusalStatus of [400, 401, 404, 405]) {
      await using world = await startWorld({ postTokens: true, tokens: { method: 'GET', refusalStatus } })
      await pull(world)
      assert.deepEqual(
        world.tokens.requests.map(({ method }) => method),
        ['POST', 'GET'],
      )
    }
    await using world = await startWorld({ postTokens: true })
    await pull(world)
    const [request] = world.tokens.requests
    assert.equal(request?.headers['authorization'], undefined)
    assert.equal(new URLSearchParams(request?.body).get('grant_type'), 'password')
  })

  it('an identity token is spent by POST as a refresh token', async () => {
    await using world = await startWorld({ credentials: [{ source: secret('<token>', 'identity-canary') }] })
    world.tokens.refreshTokens.set('identity-canary', 'alice')
    await pull(world)
    const form = new URLSearchParams(world.tokens.requests[0]?.body)
    assert.equal(form.get('grant_type'), 'refresh_token')
    assert.equal(form.get('refresh_token'), 'identity-canary')
    assert.equal(world.tokens.requests[0]?.headers['authorization'], undefined)
  })

  it('a challenge without service or scope, and one beside Basic, are answered', async () => {
    const realm = (world: World): string => `Bearer realm="${world.tokens.realm}"`
    let challenges: string[] = []
    await using world = await startWorld({ registry: { challenges: () => challenges } })
    challenges = ['Basic realm="x"', realm(world)]
    await pull(world)
    assert.deepEqual(Object.fromEntries(world.tokens.requests[0]?.query ?? []), { scope: 'repository:acme/app:pull' })
  })

  it('a registry that moves to another token server is followed there', async () => {
    let realm = ''
    await using old = await startTokenServer()
    await using world = await startWorld({
      registry: { challenges: () => [`Bearer realm="${realm}",service="scripted-registry"`] },
      realms: ['127.0.0.1'],
    })
    await using opened = openOn(world.registry.url, {
      realms: [old.host, world.tokens.host],
      credentials: [{ source: secret('alice', 'alice-canary') }],
    })
    realm = world.tokens.realm
    await pull(opened)
    world.tokens.tokens.clear()
    realm = old.realm
    old.script({}, fault.status(404), fault.status(404), fault.status(404), fault.status(404))
    await rejectsWith('UPSTREAM_INVALID', pull(opened))
    realm = world.tokens.realm
    await pull(opened)
  })

  it('a single connection is enough for challenge, ping, token and reply', async () => {
    await using world = await startWorld({ registry: { challengeOn: 'ping' } })
    await using narrow = openOn(world.registry.url, {
      realms: [world.tokens.host],
      credentials: [{ source: secret('alice', 'alice-canary') }],
      connections: 1,
      timeouts: { queueMs: 1_000 },
    })
    await pull(narrow)
  })

  it('a realm that already holds a query keeps it', async () => {
    let challenges: string[] = []
    await using world = await startWorld({ registry: { challenges: () => challenges } })
    challenges = [`Bearer realm="${world.tokens.realm}?account=x",service="scripted-registry"`]
    await pull(world)
    assert.equal(world.tokens.requests[0]?.query.get('account'), 'x')
    assert.equal(world.tokens.requests[0]?.query.get('service'), 'scripted-registry')
  })

  it('a challenge only at the ping, or only with content, is enough', async () => {
    for (const challengeOn of ['ping', 'content'] as const) {
      await using world = await startWorld({ registry: { challengeOn } })
      await pull(world)
      await pull(world, repositoryOf('acme/other'))
      assert.equal(world.registry.count({ kind: 'ping' }), challengeOn === 'ping' ? 1 : 0)
    }
  })

  it('two upstreams with other credentials, or none, never share a token', async () => {
    await using world = await startWorld({ tokens: { anonymousPulls: ['acme/**'] } })
    const realms = [world.tokens.host]
    await using anonymous = openOn(world.registry.url, { realms })
    await using other = openOn(world.registry.url, { realms, credentials: [{ source: secret('bob', 'bob-canary') }] })
    await pull(world)
    await pull(anonymous)
    await rejectsWith('UPSTREAM_DENIED', pull(other, repositoryOf('no/such')))
    await pull(other, repositoryOf('team/tool'))
    assert.equal(world.tokens.count(), 4)
    assert.equal(new Set([...world.tokens.tokens.values()].map(({ account }) => account)).size, 3)
  })

  it('the most specific credential of a repository is used, each with its own tokens', async () => {
    await using world = await startWorld({
      credentials: [
        { source: secret('alice', 'alice-canary') },
        { source: secret('bob', 'bob-canary'), repositories: ['team/*', 'nobody/**'] },
      ],
    })
    await pull(world)
    await pull(world, repositoryOf('team/tool'))
    assert.deepEqual(
      [...world.tokens.tokens.values()].map(({ account }) => account),
      ['alice', 'bob'],
    )
  })

  it('a changed secret makes old tokens unused', async () => {
    const clock = new ManualClock()
    let current = { username: 'alice', password: 'alice-canary' }
    await using world = await startWorld({ clock, credentials: [{ source: { read: () => Promise.resolve(current) } }] })
    await pull(world)
    current = { username: 'bob', password: 'bob-canary' }
    clock.advance(31_000)
    await rejectsWith('UPSTREAM_DENIED', pull(world))
  })
})

describe('realms', () => {
  it('an untrusted realm sees no packet at all, not even an anonymous one', async () => {
    await using world = await startWorld({ realms: [] })
    await rejectsWith('REALM_REJECTED', pull(world), /network\.realms/)
    assert.equal(world.tokens.acceptedConnections, 0)
    assert.equal(world.registry.count(), 1)
  })

  it('a trusted name is still refused when it leads to a private address', async () => {
    await using world = await startWorld()
    await using guarded = openOn(world.registry.url, { realms: [world.tokens.host], allowPrivate: [] })
    await rejectsWith('ADDRESS_REFUSED', pull(guarded))
    assert.equal(world.tokens.acceptedConnections, 0)
  })
})

describe('bad credentials', () => {
  const wrong = [{ source: secret('alice', 'wrong-canary') }]

  it('public content goes on anonymously, and it is said once', async () => {
    const clock = new ManualClock()
    await using world = await startWorld({ clock, credentials: wrong, tokens: { anonymousPulls: ['acme/**'] } })
    for (let calls = 0; calls < 5; calls++) {
      await pull(world)
      await pull(world, repositoryOf('acme/other'))
    }
    assert.equal(rejections(world.events).length, 1)
    assert.ok(!JSON.stringify(world.events).includes('canary'))
    assert.equal(world.tokens.count({ where: ({ headers }) => headers['authorization'] !== undefined }), 1)
  })

  it('they are tried again after half a minute, not sooner', async () => {
    const clock = new ManualClock()
    await using world = await startWorld({ clock, credentials: wrong })
    const tries = (): number => world.tokens.count({ where: ({ headers }) => headers['authorization'] !== undefined })
    for (let calls = 0; calls < 5; calls++) {
      await rejectsWith('CREDENTIALS_REJECTED', pull(world))
      clock.advance(5_000)
    }
    assert.equal(tries(), 1)
    clock.advance(6_000)
    await rejectsWith('CREDENTIALS_REJECTED', pull(world))
    assert.equal(tries(), 2)
    assert.equal(rejections(world.events).length, 1)
  })

  it('a token server that refuses the anonymous caller too gives no answer', async () => {
    await using world = await startWorld({ credentials: [], tokens: { deniedStatus: 401 } })
    await rejectsWith('CREDENTIALS_REJECTED', pull(world), /refuses the anonymous caller/)
  })

  it('a good credential refused for a missing repository stays good for the others', async () => {
    await using world = await startWorld({
      credentials: [{ source: secret('bob', 'bob-canary') }],
      tokens: { deniedStatus: 403 },
    })
    await pull(world, repositoryOf('team/tool'))
    for (let calls = 0; calls < 10; calls++)
      await rejectsWith('CREDENTIALS_REJECTED', pull(world, repositoryOf(`acme/no-${calls}`)))
    world.registry.load(tinyImage({ seed: 'late', repository: 'team/late' }))
    await pull(world, repositoryOf('team/late'))
    assert.deepEqual(rejections(world.events), [])
  })

  it('a 404 to the anonymous fallback is not told as absence', async () => {
    await using world = await startWorld({ credentials: wrong, registry: { deniedStatus: 404 } })
    await rejectsWith('CREDENTIALS_REJECTED', pull(world))
  })

  it('a source that fails leaves the anonymous caller, and is said once', async () => {
    const failing = { read: () => Promise.reject(new Error('/run/secrets/x: no such file')) }
    await using world = await startWorld({
      credentials: [{ source: failing }],
      tokens: { anonymousPulls: ['acme/app'] },
    })
    await pull(world)
    await pull(world)
    await rejectsWith('CREDENTIALS_REJECTED', pull(world, repositoryOf('acme/other')))
    assert.equal(rejections(world.events).length, 1)
  })
})

describe('Basic', () => {
  const accounts = [alice, bob]

  it('is sent after a challenge, then at once', async () => {
    await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts } })
    registry.load(...images)
    await using opened = openOn(registry.url, { credentials: [{ source: secret('alice', 'alice-canary') }] })
    await pull(opened)
    await pull(opened, repositoryOf('acme/other'))
    assert.equal(registry.count({ status: 401 }), 1)
  })

  it('without a credential the 401 is a denial; a bad one is a bad credential', async () => {
    await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts } })
    registry.load(...images)
    await using anonymous = openOn(registry.url)
    await rejectsWith('UPSTREAM_DENIED', pull(anonymous))
    await using bad = openOn(registry.url, { credentials: [{ source: secret('alice', 'wrong') }] })
    await rejectsWith('CREDENTIALS_REJECTED', pull(bad))
    await rejectsWith('CREDENTIALS_REJECTED', pull(bad))
    assert.equal(rejections(bad.events).length, 1)
    const tried = registry.count({ where: ({ headers }) => headers['authorization'] !== undefined })
    assert.equal(tried, 1)
  })

  it('a bad password sent ahead does not lose public content', async () => {
    await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts } })
    registry.load(...images)
    registry.repository('acme/other').isPrivate = false
    const clock = new ManualClock()
    let current = { username: 'alice', password: 'alice-canary' }
    await using opened = openOn(registry.url, {
      clock,
      credentials: [{ source: { read: () => Promise.resolve(current) } }],
    })
    await pull(opened)
    current = { username: 'alice', password: 'rotated' }
    clock.advance(31_000)
    registry.script(
      { where: ({ headers }) => headers['authorization'] !== undefined },
      fault.status(401, { 'WWW-Authenticate': 'Basic realm="x"' }),
    )
    await pull(opened, repositoryOf('acme/other'))
    assert.equal(rejections(opened.events).length, 1)
  })

  it('403 to a good credential is a denial', async () => {
    await using registry = await startScriptedRegistry({ auth: { scheme: 'basic', accounts } })
    registry.load(...images)
    await using opened = openOn(registry.url, { credentials: [{ source: secret('bob', 'bob-canary') }] })
    await rejectsWith('UPSTREAM_DENIED', pull(opened))
  })
})

describe('secrets', () => {
  it('of a token reply are all told before the first use, the password and its Basic form too', async () => {
    const told: string[] = []
    await using tokens = await startTokenServer({ accounts: [alice] })
    await using registry = await startScriptedRegistry({ auth: tokens.auth() })
    registry.load(...images)
    await using opened = openOn(registry.url, {
      credentials: [{ source: secret('alice', alice.password) }],
      realms: [tokens.host],
      onSecret: (value) => told.push(value),
    })
    await pull(opened)
    const sent = registry.requests.flatMap(({ headers }) => headers['authorization']?.split(' ')[1] ?? [])
    const basic = Buffer.from(`alice:${alice.password}`).toString('base64')
    assert.ok(sent.length > 0)
    for (const value of [alice.password, basic, ...sent]) assert.ok(told.includes(value), value)
    assert.deepEqual(
      parseToken('{"token":"canary-a","access_token":"canary-b","refresh_token":"canary-c","expires_in":60}')?.secrets,
      ['canary-a', 'canary-b', 'canary-c'],
    )
  })
})
