import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Secret } from '../../../src/config/secret.ts'
import { formatPlace } from '../../../src/config/source.ts'
import { accept, refuse, SHIPPED, TestConfiguration } from './configuration.ts'

describe('without a configuration file', () => {
  it('everything that is shipped is served on loopback, docker.io by default', () => {
    using folder = new TestConfiguration({ 'upstreams.d/x.yaml': '' })
    rmSync(join(folder.folder, 'upstreams.d'), { recursive: true })
    const { config, warnings } = folder.load()
    assert.ok(config)
    assert.deepEqual(warnings, [])
    assert.equal(config.upstreamsFolder, SHIPPED)
    assert.deepEqual(
      config.listeners.map(({ address, default: fallback }) => [address.host, address.port, fallback]),
      [
        ['127.0.0.1', 5000, 'docker.io'],
        ['127.0.0.1', 5001, undefined],
        ['127.0.0.1', 5002, undefined],
        ['127.0.0.1', 5003, undefined],
        ['127.0.0.1', 5004, undefined],
      ],
    )
    assert.deepEqual(config.admin.address, { host: '127.0.0.1', port: 5080 })
    assert.equal(config.data, join(folder.folder, 'data'))
    assert.equal(config.ledger, join(folder.folder, 'data/ledger.sqlite'))
  })

  it('an upstreams.d in the working folder comes before the shipped one', () => {
    const config = accept({})
    assert.deepEqual(
      config.upstreams.map(({ name }) => name),
      ['ghcr.io'],
    )
    assert.equal(config.listeners[0]?.default, undefined)
  })
})

describe('the shipped upstreams', () => {
  it('are these, with these ports, all of them anonymous', () => {
    using folder = new TestConfiguration({ 'entrepot.yaml': `upstreams: ${SHIPPED}` })
    const { config, problems, warnings } = folder.load()
    assert.deepEqual([problems, warnings], [[], []])
    assert.deepEqual(
      config?.upstreams.map(({ name, routes, url }) => `${name} ${routes.prefix} ${routes.port ?? '-'} ${url[0]?.url}`),
      [
        'docker.io docker.io 5001 https://registry-1.docker.io',
        'gcr.io gcr.io - https://gcr.io',
        'ghcr.io ghcr.io 5002 https://ghcr.io',
        'mcr.microsoft.com mcr.microsoft.com - https://mcr.microsoft.com',
        'nvcr.io nvcr.io - https://nvcr.io',
        'public.ecr.aws public.ecr.aws - https://public.ecr.aws',
        'quay.io quay.io 5003 https://quay.io',
        'registry.gitlab.com registry.gitlab.com - https://registry.gitlab.com',
        'registry.k8s.io registry.k8s.io 5004 https://registry.k8s.io',
      ],
    )
    assert.ok(config?.upstreams.every(({ auth }) => auth === undefined))
  })
})

describe('values', () => {
  it('come out in milliseconds, bytes, fractions and absolute paths', () => {
    using folder = new TestConfiguration({
      'etc/entrepot.yaml':
        'data: ../cache\nupstreams: up\nlog: { level: warn }\nkeep: { free: 5GiB }\ndrain: { delay: 0, timeout: 90s }\n',
      'etc/up/reg.yml': `name: reg.example
url: https://reg.example/base/
tags: { ttl: 15m, maxWait: 250ms, staleFor: 7d, immutable: ['v*'] }
fill: { connections: 2, from: 64MiB, completeMax: unlimited }
limits: { bandwidth: 100MB, requestsPerSecond: 0.5 }
keep: { quota: 10GiB }
routes: { hosts: [Reg.Mirror.Example] }
`,
    })
    const { config } = folder.load({ configFile: 'etc/entrepot.yaml' })
    assert.ok(config)
    const [upstream] = config.upstreams
    assert.ok(upstream)
    assert.equal(config.data, join(folder.folder, 'cache'))
    assert.equal(config.ledger, join(folder.folder, 'cache/ledger.sqlite'))
    assert.deepEqual(config.keep.free, { bytes: 5 * 1024 ** 3 })
    assert.deepEqual(config.drain, { delay: 0, timeout: 90_000 })
    assert.equal(upstream.url[0]?.url, 'https://reg.example/base')
    assert.equal(upstream.tags.ttl, 900_000)
    assert.equal(upstream.tags.maxWait, 250)
    assert.equal(upstream.tags.goneFor, 86_400_000)
    assert.deepEqual(upstream.fill, { connections: 2, from: 64 * 1024 ** 2, complete: 'onPull', completeMax: Infinity })
    assert.deepEqual(upstream.limits, { connections: 64, bandwidth: 100_000_000, requestsPerSecond: 0.5 })
    assert.deepEqual(upstream.routes.hosts, ['reg.mirror.example'])
  })

  it('of --data stand over the file, and the ledger follows', () => {
    using folder = new TestConfiguration({ 'entrepot.yaml': 'data: ./elsewhere\n' })
    const { config } = folder.load({ dataFolder: 'here' })
    assert.equal(config?.data, join(folder.folder, 'here'))
    assert.equal(config?.ledger, join(folder.folder, 'here/ledger.sqlite'))
  })

  it('may be env:NAME whatever their kind', () => {
    const env = {
      PORT: '5009',
      TTL: '5m',
      OFF: 'true',
      URL: 'https://ghcr.io',
      RATE: '3',
      ADDRESS: ':0',
      HOST: 'a.example',
      ORDER: 'fastest',
    }
    const config = accept(
      {
        'entrepot.yaml': 'listen: { address: env:ADDRESS }',
        'upstreams.d/ghcr.io.yaml':
          'url: env:URL\norder: env:ORDER\nroutes: { port: env:PORT, hosts: [env:HOST] }\ntags: { ttl: env:TTL }\noffline: env:OFF\nlimits: { requestsPerSecond: env:RATE }\n',
      },
      { env },
    )
    const [upstream] = config.upstreams
    assert.deepEqual(config.listeners[0]?.address, { host: undefined, port: 0 })
    assert.deepEqual(
      [upstream?.routes.port, upstream?.tags.ttl, upstream?.offline, upstream?.order],
      [5009, 300_000, true, 'fastest'],
    )
    assert.deepEqual([upstream?.routes.hosts, upstream?.limits.requestsPerSecond], [['a.example'], 3])
  })

  it('of a wrong environment variable are not shown', () => {
    const [problem] = refuse({ 'entrepot.yaml': 'drain: { delay: env:X }' }, { env: { X: 's3cret' } })
    assert.equal(
      problem,
      'entrepot.yaml:1:10 drain.delay: the value of env:X is no duration, write for example 5s (units: ms, s, m, h or d)',
    )
  })

  it('give one upstream its aliases, Docker Hub all its names', () => {
    const config = accept({
      'upstreams.d/docker.io.yaml': 'url: https://registry-1.docker.io\naliases: [Hub.Example:443]\n',
    })
    assert.deepEqual(config.upstreams[0]?.aliases, [
      'hub.example',
      'registry-1.docker.io',
      'index.docker.io',
      'registry.hub.docker.com',
    ])
  })

  it('of a name with a port leave the upstream without a prefix', () => {
    const config = accept({ 'upstreams.d/corp.yaml': 'name: registry.corp:5000\nurl: https://registry.corp:5000\n' })
    assert.equal(config.upstreams[0]?.routes.prefix, undefined)
  })
})

describe('listeners', () => {
  it("an upstream's port is opened on every host of listen, with its TLS, once", () => {
    using folder = new TestConfiguration({
      'entrepot.yaml':
        'listen: [{ address: "10.0.0.1:5000", tls: { cert: c, key: k } }, { address: "127.0.0.1:5000" }, { address: "127.0.0.1:6000" }]',
      'upstreams.d/ghcr.io.yaml': 'url: https://ghcr.io\nroutes: { port: 5002 }\n',
      c: 'cert',
      k: 'key',
    })
    const { config } = folder.load()
    assert.deepEqual(
      config?.listeners.map(({ address, tls }) => `${address.host}:${address.port}${tls ? ' tls' : ''}`),
      ['10.0.0.1:5000 tls', '127.0.0.1:5000', '127.0.0.1:6000', '10.0.0.1:5002 tls', '127.0.0.1:5002'],
    )
  })

  it('a port that listen names itself is not opened again', () => {
    const config = accept({
      'entrepot.yaml': 'listen: [{ address: ":5000" }, { address: "127.0.0.1:5002", default: ghcr.io }]',
      'upstreams.d/ghcr.io.yaml': 'url: https://ghcr.io\nroutes: { port: 5002 }\n',
    })
    assert.equal(config.listeners.length, 2)
  })

  it('certificates go by host, the one without hosts is for all others', () => {
    using folder = new TestConfiguration({
      'entrepot.yaml':
        'listen: { address: ":5000", tls: [{ cert: a, key: a, hosts: [A.example] }, { cert: b, key: b, clientCa: ca }] }',
      a: 'a',
      b: 'b',
      ca: 'ca',
    })
    const at = (name: string): string => join(folder.folder, name)
    assert.deepEqual(folder.load().config?.listeners[0]?.tls, {
      default: { cert: at('b'), key: at('b') },
      byHost: [{ hosts: ['a.example'], cert: at('a'), key: at('a') }],
      clientCa: at('ca'),
    })
  })
})

describe('secrets', () => {
  const file = (auth: string): string => `url: https://ghcr.io\naccess: shared\nauth: ${auth}\n`

  it('come from the environment, from a file beside the file that names it, or as they are', () => {
    const config = accept(
      {
        'upstreams.d/ghcr.io.yaml': file(
          '[{ username: env:U, password: file:pw, repositories: [acme/*] }, { username: bob, password: "file-like" }]',
        ),
        'upstreams.d/pw': 'from-file\n',
      },
      { env: { U: 'file:literally' } },
    )
    const [first, second] = config.upstreams[0]?.auth ?? []
    assert.ok(first?.username instanceof Secret)
    assert.deepEqual([first.username.reveal(), first.password?.reveal()], ['file:literally', 'from-file'])
    assert.deepEqual([second?.username?.reveal(), second?.password?.reveal()], ['bob', 'file-like'])
    assert.doesNotMatch(JSON.stringify(config), /from-file|bob|literally/)
  })

  it('that are missing are problems at their place, without a word of what was there', () => {
    assert.deepEqual(
      refuse({ 'upstreams.d/ghcr.io.yaml': file('{ username: env:NO_USER, password: env:hunter2 is my password }') }),
      [
        'upstreams.d/ghcr.io.yaml:3:9 auth.username: the environment variable NO_USER is not set',
        'upstreams.d/ghcr.io.yaml:3:32 auth.password: env: must be followed by the name of an environment variable',
      ],
    )
    const [number] = refuse({ 'upstreams.d/ghcr.io.yaml': file('{ username: bob, password: 12345678 }') })
    assert.match(number ?? '', /put it in quotes/)
    assert.doesNotMatch(number ?? '', /12345678/)
    const [missing] = refuse({ 'upstreams.d/ghcr.io.yaml': file('{ username: bob, password: file:/nowhere/pw }') })
    assert.match(missing ?? '', /auth\.password: cannot read the secret file \/nowhere\/pw: no such file$/)
  })

  it('in a file that everybody can read are a warning', () => {
    using folder = new TestConfiguration({
      'upstreams.d/ghcr.io.yaml': file('{ username: bob, password: file:pw }'),
      'upstreams.d/pw': 'x',
    })
    assert.deepEqual(folder.load().warnings, [])
    const path = join(folder.folder, 'upstreams.d/pw')
    chmodSync(path, 0o644)
    const { config, warnings } = folder.load()
    assert.ok(config)
    assert.deepEqual(warnings, [
      `upstreams.d/ghcr.io.yaml: secret file ${path} can be read by every user of this machine: chmod o-r ${path}`,
    ])
  })
})

describe('places', () => {
  it('of every key are known after loading', () => {
    using folder = new TestConfiguration({
      'entrepot.yaml': '# first\ndata: ./d\n',
      'upstreams.d/ghcr.io.yaml': 'url: https://ghcr.io\nroutes:\n  port: 5002\n',
    })
    const loaded = folder.load()
    assert.ok(loaded.config)
    const show = (place: Parameters<typeof formatPlace>[0] | undefined): string | undefined =>
      place && formatPlace(place)
    assert.equal(show(loaded.places.upstream('ghcr.io', ['routes', 'port'])), 'upstreams.d/ghcr.io.yaml:3:3')
    assert.equal(show(loaded.places.gateway(['data'])), 'entrepot.yaml:2:1')
    assert.equal(loaded.places.upstream('quay.io', []), undefined)
  })
})

describe('files', () => {
  it('that cannot be used are problems, all at once', () => {
    using folder = new TestConfiguration({
      'upstreams.d/a.yaml': '- a list\n',
      'upstreams.d/b.yaml': 'url: [\n',
      'upstreams.d/c.yml': `url: https://c.example # ${'x'.repeat(1024 * 1024)}\n`,
      'upstreams.d/README.md': 'not read',
      'upstreams.d/.hidden.yaml': 'not read',
    })
    mkdirSync(join(folder.folder, 'upstreams.d/d.yaml'))
    const { problems } = folder.load({ configFile: 'nowhere.yaml' })
    assert.deepEqual(
      problems.map(({ file }) => file),
      ['nowhere.yaml', ...['a.yaml', 'b.yaml', 'c.yml', 'd.yaml'].map((name) => `upstreams.d/${name}`)],
    )
  })

  it('a folder without upstreams, or none at all, is a problem of the key upstreams', () => {
    using folder = new TestConfiguration({ 'entrepot.yaml': '\nupstreams: empty\n' })
    mkdirSync(join(folder.folder, 'empty'))
    const read = (): string =>
      folder
        .load()
        .problems.map(({ line, key, message }) => `${line} ${key}: ${message}`)
        .join()
    assert.equal(read(), '2 upstreams: the folder empty holds no *.yaml file, so nothing could be pulled')
    writeFileSync(join(folder.folder, 'entrepot.yaml'), 'upstreams: nowhere\n')
    assert.equal(read(), '1 upstreams: cannot read the folder nowhere: no such file or folder')
  })
})

describe('what is no error but should be looked at', () => {
  it('a secret that stands in a file itself is told with its place, one from elsewhere is not', () => {
    using folder = new TestConfiguration({
      'entrepot.yaml': 'admin:\n  token: canary-token',
      'upstreams.d/a.example.yaml':
        'url: https://a.example\naccess: shared\nauth: { username: a, password: canary-password }',
      'upstreams.d/b.example.yaml': 'url: https://b.example\naccess: shared\nauth: { helper: x }',
    })
    const { warnings } = folder.load()
    assert.deepEqual(warnings, [
      'entrepot.yaml:2:3 admin.token: the secret itself is written here; write env:NAME or file:PATH',
      'upstreams.d/a.example.yaml:3:22 auth.password: the secret itself is written here; write env:NAME or file:PATH',
    ])
  })

  it('a file under the other usual name is not read', () => {
    using folder = new TestConfiguration({ 'entrepot.yml': 'data: /elsewhere' })
    const { warnings } = folder.load()
    assert.deepEqual(warnings, ['entrepot.yml is not read: rename it to entrepot.yaml, or name it by --config'])
  })
})

describe('values that a person might write', () => {
  const rows: [text: string, message: RegExp][] = [
    ['listen: 5000', /:1:1 listen: must be a section.* listen: \{ address: .* default, tls/],
    ['admin: { address: 5080 }', /admin\.address: is a port without a host, write "127\.0\.0\.1:5080", or ":5080"/],
    ['data: ~/cache', /data: "~\/cache" begins with ~, which only a shell replaces/],
    ['listen: [1\nb: }\nc: {', /^entrepot\.yaml:2:1 no YAML/],
  ]
  for (const [text, message] of rows) {
    it(`${JSON.stringify(text)} is one problem that says how it is written`, () => {
      using folder = new TestConfiguration({ 'entrepot.yaml': text })
      const told = folder.load().problems.map((problem) => `${formatPlace(problem)} ${problem.key}: ${problem.message}`)
      assert.equal(told.length, 1, told.join('\n'))
      assert.match(told[0]?.replace(' : ', ' ') ?? '', message)
    })
  }
})
