/**
 * T13: every endpoint x every way of naming an upstream x every kind of caller, cold and warm, against a model written
 * apart from the code. Whoever is refused gets not one byte and causes not one call to an upstream.
 */
import assert from 'node:assert/strict'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import bcrypt from 'bcryptjs'
import {
  basic,
  connection,
  eachOf,
  freePorts,
  hostOf,
  placesOf,
  questionsAbout,
  type Addresses,
  type Answer,
  type Connection,
  type ConnectionTls,
  type Place,
  type Question,
} from '../support/authorisation.ts'
import { startScriptedRegistry, type ScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway, type TestGateway } from '../support/start-gateway.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { tinyImage } from '../support/tiny-image.ts'
import { TestAuthority, testAuthority } from '../support/tls.ts'

const REPOSITORY = 'acme/app'
const IMAGES = {
  'open.test': tinyImage({ seed: 'open', repository: REPOSITORY, tag: '1' }),
  'closed.test': tinyImage({ seed: 'closed', repository: REPOSITORY, tag: '1' }),
  'wired.test': tinyImage({ seed: 'wired', repository: REPOSITORY, tag: '1' }),
  'ruled.test': tinyImage({ seed: 'ruled', repository: REPOSITORY, tag: '1' }),
} as const
type UpstreamName = keyof typeof IMAGES
const UPSTREAMS = Object.keys(IMAGES) as UpstreamName[]

interface Caller {
  readonly who: string
  /** What the model knows of the caller. */
  readonly door: 'in' | 401 | 403
  /** The name it has proven. */
  readonly name?: string
  /** Headers of one request: an address of its own each time, since failures are limited by address. */
  readonly headers: (count: number) => Readonly<Record<string, string>>
  readonly tls?: ConnectionTls
}

interface Scheme {
  readonly what: string
  /** Of entrepot.yaml, below `listen`. */
  readonly main: (htpasswd: string) => string
  readonly tls?: string
  /** What `closed.test` says of its clients. */
  readonly closed: string
  /** To somebody who is in without a name and asks for what is for some users. */
  readonly nameless: 401 | 403
  readonly callers: readonly Caller[]
}

const inside = (count: number): string => `2001:db8:0:${(count % 65_535).toString(16)}::1`
const outside = (count: number): string => `2001:db9:0:${(count % 65_535).toString(16)}::1`
const from = (address: (count: number) => string, authorization?: string) => (count: number) => ({
  'x-forwarded-for': address(count),
  ...(authorization === undefined ? {} : { authorization }),
})
const CI = basic('ci', 'secret of ci')
const DEV = basic('dev', 'secret of dev')
const WRONG = basic('ci', 'guess')
const authority = testAuthority()
const stranger = new TestAuthority()
const certified = (name: string, by = authority): ConnectionTls => {
  const { cert, key } = by.client(name)
  return { ca: authority.ca, cert, key }
}
const bare = { ca: authority.ca }
const NETWORKS = 'networks: [2001:db8::/32]'

const SCHEMES: readonly Scheme[] = [
  {
    what: 'passwords from a network',
    main: (htpasswd) => `clients: { htpasswd: ${htpasswd}, ${NETWORKS}, require: all }\ntrustedProxies: [127.0.0.1]`,
    closed: 'users: [ci]',
    nameless: 401,
    callers: [
      { who: 'nobody', door: 401, headers: from(inside) },
      { who: 'a wrong password', door: 401, headers: from(inside, WRONG) },
      { who: 'an unknown user', door: 401, headers: from(inside, basic('nobody', 'guess')) },
      { who: 'a Bearer token', door: 401, headers: from(inside, 'Bearer eyJ0') },
      { who: 'ci', door: 'in', name: 'ci', headers: from(inside, CI) },
      { who: 'dev', door: 'in', name: 'dev', headers: from(inside, DEV) },
      { who: 'ci from elsewhere', door: 403, headers: from(outside, CI) },
      { who: 'nobody from elsewhere', door: 403, headers: from(outside) },
    ],
  },
  {
    what: 'a password or a network',
    main: (htpasswd) => `clients: { htpasswd: ${htpasswd}, ${NETWORKS}, require: any }\ntrustedProxies: [127.0.0.1]`,
    closed: 'users: [ci]',
    nameless: 401,
    callers: [
      { who: 'nobody', door: 'in', headers: from(inside) },
      { who: 'a wrong password', door: 'in', headers: from(inside, WRONG) },
      { who: 'ci', door: 'in', name: 'ci', headers: from(inside, CI) },
      { who: 'dev from elsewhere', door: 'in', name: 'dev', headers: from(outside, DEV) },
      { who: 'nobody from elsewhere', door: 401, headers: from(outside) },
      { who: 'a wrong password from elsewhere', door: 401, headers: from(outside, WRONG) },
    ],
  },
  {
    what: 'certificates',
    main: () => '',
    tls: `{ cert: ${authority.server().certFile}, key: ${authority.server().keyFile}, clientCa: ${authority.caFile} }`,
    closed: 'certificates: [c?]',
    nameless: 403,
    callers: [
      { who: 'nobody', door: 403, headers: () => ({}), tls: bare },
      { who: 'a password in place of a certificate', door: 403, headers: () => ({ authorization: CI }), tls: bare },
      { who: "another authority's ci", door: 403, headers: () => ({}), tls: certified('ci', stranger) },
      { who: 'ci', door: 'in', name: 'ci', headers: () => ({}), tls: certified('ci') },
      { who: 'dev', door: 'in', name: 'dev', headers: () => ({}), tls: certified('dev') },
    ],
  },
]

interface Cell {
  readonly caller: Caller
  readonly upstream: UpstreamName
  readonly place: Place
  readonly question: Question
  readonly expected: number
}

/** The model: what each cell must answer. */
function expectedStatus(
  scheme: Scheme,
  caller: Caller,
  upstream: UpstreamName,
  place: Place,
  question: Question,
): number {
  if (caller.door !== 'in') return caller.door
  if (question.kind === 'ping') return 200
  if (question.kind === 'catalog' && place.via === 'default') return 200
  if (upstream === 'closed.test' && caller.name !== 'ci') return caller.name === undefined ? scheme.nameless : 403
  if (upstream === 'wired.test') return 403
  if (upstream === 'ruled.test' && question.kind !== 'catalog') return 403
  return question.granted
}

interface World extends AsyncDisposable {
  readonly gateway: TestGateway
  readonly registries: readonly ScriptedRegistry[]
  readonly cells: readonly Cell[]
  readonly connectionOf: (caller: Caller) => Connection
}

async function startWorld(scheme: Scheme): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const { path } = stack.use(await temporaryFolder())
  const htpasswd = join(path, 'htpasswd')
  const lines = ['ci', 'dev'].map((user) => `${user}:${bcrypt.hashSync(`secret of ${user}`, 4)}\n`)
  await writeFile(htpasswd, lines.join(''))
  const registries: ScriptedRegistry[] = []
  const files: Record<string, string> = {}
  const ports = await freePorts(UPSTREAMS.length)
  const more: Readonly<Record<UpstreamName, string>> = {
    'open.test': '',
    'closed.test': `clients: { ${scheme.closed} }`,
    'wired.test': 'clients: { networks: [10.0.0.0/8] }',
    'ruled.test': 'deny: [acme/**]',
  }
  for (const [index, name] of UPSTREAMS.entries()) {
    const registry = stack.use(await startScriptedRegistry({}))
    registry.load(IMAGES[name])
    registries.push(registry)
    const routes = `routes: { hosts: [${hostOf(name)}], port: ${ports[index]} }`
    files[name] = `url: ${registry.url}\nfill: { complete: never }\n${routes}\n${more[name]}`
  }
  const tls = scheme.tls === undefined ? '' : `, tls: ${scheme.tls}`
  const listen = [undefined, 'open.test', 'closed.test'].map((name) => {
    return `  - { address: '127.0.0.1:0'${name === undefined ? '' : `, default: ${name}`}${tls} }`
  })
  const rest = 'admin: { address: 127.0.0.1:0 }\ndrain: { delay: 0s, timeout: 5s }\nkeep: { free: 0% }'
  const main = `listen:\n${listen.join('\n')}\n${rest}\n${scheme.main(htpasswd)}`
  const gateway = stack.use(await startTestGateway({ upstreams: files, main }))
  const [first = 0, open = 0, closed = 0] = gateway.ports
  const addresses: Addresses = {
    main: first,
    ports: Object.fromEntries(UPSTREAMS.map((name, index) => [name, ports[index] ?? 0])),
    defaults: { 'open.test': open, 'closed.test': closed },
  }
  const cells = scheme.callers.flatMap((caller) =>
    UPSTREAMS.flatMap((upstream) => {
      const { repository, tag, root, blobs } = IMAGES[upstream]
      const names = { repository, tag, manifest: root.digest, blob: blobs[1]?.digest ?? '' }
      return questionsAbout(names).flatMap((question) =>
        placesOf(addresses, upstream, question.rest).map((place): Cell => {
          return {
            caller,
            upstream,
            place,
            question,
            expected: expectedStatus(scheme, caller, upstream, place, question),
          }
        }),
      )
    }),
  )
  const connections = new Map(
    scheme.callers.map((caller) => [caller, stack.adopt(connection(caller.tls), (open) => open[Symbol.dispose]())]),
  )
  const owned = stack.move()
  return {
    gateway,
    registries,
    cells,
    connectionOf: (caller) => connections.get(caller) ?? connection(caller.tls),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

const isRefused = ({ expected }: Cell): boolean => expected >= 400
const callsTo = (registries: readonly ScriptedRegistry[]): number =>
  registries.reduce((sum, { requests }) => sum + requests.length, 0)

let count = 0

async function askCell({ connectionOf }: World, cell: Cell): Promise<Answer> {
  const { caller, place, question } = cell
  count++
  const headers = { ...question.headers, ...caller.headers(count) }
  return connectionOf(caller).ask(place, question.method, headers)
}

function describe({ caller, place, question }: Cell): string {
  const { method, headers } = question
  return `${caller.who}: ${method} ${place.path} via ${place.via} ${JSON.stringify(headers)}`
}

function checkRefusal(cell: Cell, { status, headers, body }: Answer): void {
  const what = describe(cell)
  assert.equal(status, cell.expected, `${what}: ${body.toString()}`)
  assert.equal(headers['www-authenticate'], status === 401 ? 'Basic realm="Entrepot"' : undefined, what)
  assert.equal(headers['cache-control'], 'no-store', what)
  for (const name of ['etag', 'docker-content-digest', 'content-range', 'link', 'cache-status']) {
    assert.equal(headers[name], undefined, `${what} has ${name}`)
  }
  if (cell.question.method === 'HEAD') return assert.equal(body.length, 0, what)
  const [error] = JSON.parse(body.toString()).errors
  assert.equal(error.code, status === 401 ? 'UNAUTHORIZED' : 'DENIED', what)
  assert.ok(body.length < 600, what)
}

function checkGrant(cell: Cell, { status, headers, body }: Answer): void {
  const what = describe(cell)
  assert.equal(status, cell.expected, `${what}: ${body.toString()}`)
  if (cell.caller.tls === undefined) assert.equal(headers['vary'], 'Authorization', what)
  assert.match(headers['cache-control'] ?? '', /^private/, what)
}

async function refuseAll(t: TestContext, world: World, state: 'cold' | 'warm'): Promise<void> {
  const refused = world.cells.filter(isRefused)
  const before = callsTo(world.registries)
  let bytes = 0
  await eachOf(refused, 8, async (cell) => {
    const answer = await askCell(world, cell)
    checkRefusal(cell, answer)
    if (answer.status < 400) bytes += answer.body.length
  })
  assert.equal(callsTo(world.registries) - before, 0, 'upstream requests for refused callers')
  assert.equal(bytes, 0)
  t.diagnostic(`${state}: ${refused.length} refused cells, ${bytes} forbidden bytes, 0 upstream requests`)
}

for (const scheme of SCHEMES) {
  test(`T13 with ${scheme.what}: every cell as the model says, nothing of what is refused`, async (t) => {
    await using world = await startWorld(scheme)
    await refuseAll(t, world, 'cold')
    for (const name of UPSTREAMS) {
      const held = await readdir(join(world.gateway.data, name, 'docker/registry/v2/repositories')).catch(() => [])
      assert.deepEqual(held, [], `${name} holds something after refusals alone`)
    }
    const granted = world.cells.filter((cell) => !isRefused(cell))
    for (const _ of ['cold', 'warm']) {
      await eachOf(granted, 8, async (cell) => checkGrant(cell, await askCell(world, cell)))
    }
    await refuseAll(t, world, 'warm')
    const [, , wired, ruled] = world.registries
    assert.deepEqual([wired?.requests.length, ruled?.requests.length], [0, 0])
    t.diagnostic(`${2 * world.cells.length} cells, ${2 * granted.length} of them granted`)
  })
}

test('a catalog lists what the caller may pull, and nothing else', async () => {
  const [scheme] = SCHEMES
  assert.ok(scheme)
  await using world = await startWorld(scheme)
  const granted = world.cells.filter((cell) => !isRefused(cell))
  await eachOf(granted, 8, async (cell) => void (await askCell(world, cell)))
  const expected: Readonly<Record<string, readonly string[]>> = {
    ci: ['acme/app', 'closed.test/acme/app'],
    dev: ['acme/app'],
  }
  for (const [who, repositories] of Object.entries(expected)) {
    const cell = granted.find(({ caller, upstream, place, question }) => {
      const isIt = upstream === 'open.test' && place.via === 'default' && question.kind === 'catalog'
      return isIt && caller.who === who && question.method === 'GET'
    })
    assert.ok(cell)
    assert.deepEqual(JSON.parse((await askCell(world, cell)).body.toString()), { repositories })
  }
})

test('without client auth an Authorization header is ignored, not forwarded, not logged', async () => {
  await using registry = await startScriptedRegistry({})
  registry.load(IMAGES['open.test'])
  await using gateway = await startTestGateway({
    upstreams: { 'open.test': `url: ${registry.url}` },
    default: 'open.test',
  })
  using client = connection()
  const canary = 'Basic Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk'
  for (const path of ['/v2/', '/v2/acme/app/manifests/1', '/v2/acme/app/tags/list', '/v2/_catalog']) {
    const answer = await client.ask({ via: 'default', port: gateway.port, path, host: undefined }, 'GET', {
      authorization: canary,
    })
    assert.equal(answer.status, 200, path)
    assert.equal(answer.headers['www-authenticate'], undefined)
    assert.equal(answer.headers['vary'], undefined)
  }
  assert.ok(registry.requests.length > 0)
  assert.doesNotMatch(JSON.stringify(registry.requests), /Y2FuYXJ5|canary/)
  assert.doesNotMatch(JSON.stringify(gateway.events), /Y2FuYXJ5|canary/)
})
