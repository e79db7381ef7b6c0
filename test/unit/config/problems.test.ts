/** What a wrong configuration says: the sentence, and the place it points at. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { accept, refuse } from './configuration.ts'

interface Case {
  readonly what: string
  readonly gateway?: string
  readonly upstreams?: Readonly<Record<string, string>>
  readonly problems: readonly RegExp[]
}

const AUTH = 'auth: { username: bob, password: x }'
const GHCR = 'url: https://ghcr.io'
// `secret`, at the least cost.
const HTPASSWD = 'ci:$2y$04$WWo0ZFUkoLTVc8/wdkrF7.zP9Td/1lNu6WhMlK6HpYlzNc8dZGyxC\n'

const CASES: readonly Case[] = [
  {
    what: 'an unknown key, with the nearest known one',
    gateway: 'lisen: 1',
    problems: [/^entrepot.yaml:1:1 lisen: is no known key; did you mean listen\?$/],
  },
  {
    what: 'an unknown key in a section of a list',
    gateway: 'listen:\n  - address: ":5000"\n    tsl: {}',
    problems: [/:3:5 listen\[0\]\.tsl: is no known key; did you mean tls\?/],
  },
  {
    what: 'an unknown key that resembles none, with those known',
    gateway: 'log: { colour: red }',
    problems: [/:1:8 log\.colour: is no known key here; known are level, format$/],
  },
  {
    what: 'every problem of every file at once',
    gateway: 'drain: { delay: 5, timeout: soon }\ndrian: {}',
    upstreams: { 'a.yaml': 'url: ftp://a.example\ntags: { ttl: 60 }', 'b.yaml': 'urls: https://b.example' },
    problems: [
      /^entrepot.yaml:1:10 drain\.delay: 5 has no unit, write for example 5s/,
      /^entrepot.yaml:1:20 drain\.timeout: "soon" is no duration, write for example 60s/,
      /^entrepot.yaml:2:1 drian: .*did you mean drain\?/,
      /^upstreams.d\/a.yaml:1:1 url: is no URL with http:\/\/ or https:\/\//,
      /^upstreams.d\/a.yaml:2:9 tags\.ttl: 60 has no unit, write for example 1m/,
      /^upstreams.d\/b.yaml:1:1 url: is missing/,
      /^upstreams.d\/b.yaml:1:1 urls: .*did you mean url\?/,
    ],
  },
  {
    what: 'a size without its i or B',
    upstreams: { 'a.yaml': `${GHCR}\nfill: { from: 32M }` },
    problems: [/fill\.from: "32M" is no size, write for example 32MiB/],
  },
  {
    what: 'an address without a port',
    gateway: 'admin: { address: localhost }',
    problems: [/admin\.address: "localhost" is no address, write for example 127\.0\.0\.1:5080/],
  },
  { what: 'a list where one value belongs', gateway: 'data: [a, b]', problems: [/data: is one value, no list/] },
  {
    what: 'a value where a list belongs',
    gateway: 'trustedProxies: 10.0.0.0/8',
    problems: [/trustedProxies: must be a list/],
  },
  { what: 'a value where a section belongs', gateway: 'log: info', problems: [/log: must be a section/] },
  { what: 'a key without a value', gateway: 'data:', problems: [/:1:1 data: is empty/] },
  {
    what: 'no network',
    gateway: 'trustedProxies: [10.0.0.0/33, example.org]',
    problems: [/:1:18 trustedProxies\[0\]: "10\.0\.0\.0\/33" is no network/, /:1:31 trustedProxies\[1\]/],
  },
  {
    what: 'a certificate file that is not there',
    gateway: 'listen: { address: ":5000", tls: { cert: no.pem, key: no.key } }',
    problems: [/listen\.tls\.cert: cannot read the file .*no\.pem: no such file/, /listen\.tls\.key/],
  },
  {
    what: 'a URL with credentials, which it does not repeat',
    upstreams: { 'a.yaml': 'url: https://bob:hunter2@a.example' },
    problems: [/url: holds a user or password: those belong under auth$/],
  },
  {
    what: 'a URL that ends in /v2',
    upstreams: { 'a.yaml': 'url: https://a.example/v2/' },
    problems: [/url: ends in \/v2/],
  },
  {
    what: 'a capability nobody has',
    upstreams: { 'a.yaml': 'url: [{ url: https://a.example, capabilities: [pull] }]' },
    problems: [/url: no endpoint has the capability resolve/],
  },
  {
    what: 'half a credential',
    upstreams: { 'a.yaml': `${GHCR}\naccess: shared\nauth: { username: bob }` },
    problems: [/:3:1 auth: needs username and password, or helper/],
  },
  {
    what: 'both ways of a credential',
    upstreams: { 'a.yaml': `${GHCR}\naccess: shared\nauth: { username: bob, password: x, helper: y }` },
    problems: [/auth\.helper: stands beside username or password/],
  },
  {
    what: 'two credentials for everything',
    upstreams: { 'a.yaml': `${GHCR}\naccess: shared\nauth: [{ helper: a }, { helper: b }]` },
    problems: [/:3:23 auth\[1\]: is for all repositories, and so is an earlier one/],
  },
  {
    what: 'half a client certificate',
    upstreams: { 'a.yaml': `${GHCR}\nnetwork: { key: a.yaml }` },
    problems: [/network\.key: needs network\.cert/],
  },
  {
    what: 'a name that is no folder',
    upstreams: { 'a.yaml': `name: ../etc\n${GHCR}` },
    problems: [/:1:1 name: "\.\.\/etc" is no name of an upstream/],
  },
  {
    what: 'a name that is a database beside the folders',
    upstreams: { 'a.yaml': `name: lock.sqlite\n${GHCR}` },
    problems: [/:1:1 name: lock\.sqlite is reserved/],
  },
  {
    what: 'a name that ends as no folder may',
    upstreams: { 'a.yaml': `name: ghcr-\n${GHCR}` },
    problems: [/:1:1 name: ghcr- can name no folder below data/],
  },
  {
    what: 'a file name that gives no name',
    upstreams: { 'My Registry.yaml': GHCR },
    problems: [/name: "My Registry" is no name of an upstream/],
  },
  {
    what: 'a prefix that hides the API',
    upstreams: { 'a.yaml': `${GHCR}\nroutes: { prefix: v2 }` },
    problems: [/routes\.prefix: v2 starts every path/],
  },

  // who receives what
  {
    what: 'credentials that nobody said may be shared, with the line to add',
    upstreams: { 'a.yaml': `${GHCR}\n${AUTH}` },
    problems: [
      /:2:1 auth: a has credentials and clients need none: .* shared with whoever reaches this gateway\. If that is meant, add the line "access: shared"$/,
    ],
  },
  {
    what: 'credentials in plain text to another machine',
    upstreams: { 'a.yaml': `url: http://a.example\naccess: shared\n${AUTH}` },
    problems: [/:1:1 url: credentials would go in plain text to a\.example: .*"allowPlaintextCredentials: true"/],
  },
  {
    what: 'a password on a pattern',
    upstreams: { 'p.yaml': `name: '*.pkg.dev'\nurl: https://*.pkg.dev\naccess: shared\n${AUTH}` },
    problems: [/:4:9 auth\.username: a user name and password must not stand on the pattern \*\.pkg\.dev/],
  },
  {
    what: 'clients that must show nothing',
    gateway: 'clients: { require: any }',
    problems: [/:1:1 clients: names nothing that clients must show: write htpasswd or networks, or remove it/],
  },
  {
    what: 'an htpasswd file with lines that cannot be used, without repeating a hash',
    gateway: 'clients: { htpasswd: upstreams.d/ht }',
    upstreams: { 'a.yaml': GHCR, ht: 'bob:$apr1$canary\n\nnocolon\n' },
    problems: [
      /:1:12 clients\.htpasswd: line 1 of that file: user bob: the hash is not of bcrypt .*`htpasswd -B FILE USER`$/,
      /clients\.htpasswd: line 3 of that file: is no line of the form user:hash/,
    ],
  },
  {
    what: 'users and certificates of an upstream that nothing at the gateway tells apart',
    upstreams: { 'a.yaml': `${GHCR}\nclients: { users: [ci], certificates: ['*.example'] }` },
    problems: [
      /:2:12 clients\.users: names users, and entrepot\.yaml has no clients\.htpasswd/,
      /:2:25 clients\.certificates: names certificates, and no listener has tls\.clientCa/,
    ],
  },
  {
    what: 'clients of an upstream that name nobody',
    upstreams: { 'a.yaml': `${GHCR}\nclients: {}` },
    problems: [/:2:1 clients: names nobody: write users, certificates or networks/],
  },
  {
    what: 'credentials behind a network alone, which tells nobody apart',
    gateway: 'clients: { networks: [10.0.0.0/8] }',
    upstreams: { 'a.yaml': `${GHCR}\n${AUTH}` },
    problems: [/:2:1 auth: a has credentials and clients need none/],
  },
  {
    what: 'credentials behind passwords that a network makes needless',
    gateway: 'clients: { htpasswd: upstreams.d/ht, networks: [10.0.0.0/8], require: any }',
    upstreams: { 'a.yaml': `${GHCR}\n${AUTH}`, ht: HTPASSWD },
    problems: [/:2:1 auth: a has credentials and clients need none/],
  },
  {
    what: 'an admin listener for everybody without a token',
    gateway: 'admin: { address: ":5080" }',
    problems: [/admin\.address: is reachable from other machines: set admin\.token/],
  },

  // claims of two
  {
    what: 'one port of two upstreams, naming both places',
    upstreams: { 'a.yaml': `${GHCR}\nroutes: { port: 5002 }`, 'b.yaml': `${GHCR}\nroutes:\n  port: 5002` },
    problems: [
      /^upstreams.d\/b.yaml:3:3 routes\.port: port 5002 belongs to upstream a at upstreams\.d\/a\.yaml:2:11 already/,
    ],
  },
  {
    what: 'one name of two upstreams',
    upstreams: { 'a.yaml': `name: b\n${GHCR}`, 'b.yaml': GHCR },
    problems: [/^upstreams.d\/b.yaml:1:1 name: name b belongs to upstream b at upstreams\.d\/a\.yaml:1:1/],
  },
  {
    what: "an alias that is another's name",
    upstreams: { 'a.yaml': `${GHCR}\naliases: [x, B:443]`, 'b.yaml': GHCR },
    problems: [/^upstreams.d\/b.yaml:1:1 name: name b belongs to upstream a at upstreams\.d\/a\.yaml:2:14/],
  },
  {
    what: 'a name of Docker Hub',
    upstreams: { 'docker.io.yaml': GHCR, 'index.docker.io.yaml': GHCR },
    problems: [/index\.docker\.io belongs to upstream docker\.io/],
  },
  {
    what: 'one host of two upstreams',
    upstreams: {
      'a.yaml': `${GHCR}\nroutes: { hosts: [M.example] }`,
      'b.yaml': `${GHCR}\nroutes: { hosts: [m.example] }`,
    },
    problems: [/host m\.example belongs to upstream a/],
  },
  {
    what: "a host that is another's name",
    upstreams: { 'a.yaml': `${GHCR}\nroutes: { hosts: [b] }`, 'b.yaml': GHCR },
    problems: [/name b belongs to upstream a at upstreams\.d\/a\.yaml:2:19/],
  },
  {
    what: "a prefix that is another's name",
    upstreams: { 'a.yaml': GHCR, 'b.yaml': `${GHCR}\nroutes: { prefix: a }` },
    problems: [/routes\.prefix: prefix a belongs to upstream a/],
  },
  {
    what: 'a prefix inside another',
    upstreams: { 'a.yaml': GHCR, 'b.yaml': `${GHCR}\nroutes: { prefix: a/b }` },
    problems: [/:2:11 routes\.prefix: prefix a\/b lies inside a of upstream a at upstreams\.d\/a\.yaml:1:1/],
  },
  {
    what: 'patterns that cross',
    upstreams: {
      'a.yaml': `name: 'a*.example'\nurl: https://a*.example`,
      'b.yaml': `name: '*b.example'\nurl: https://*b.example`,
    },
    problems: [/pattern \*b\.example covers hosts that a\*\.example of upstream a\*\.example/],
  },
  {
    what: 'a port on a pattern',
    upstreams: { 'a.yaml': `name: '*.example'\nurl: https://*.example\nroutes: { port: 5002 }` },
    problems: [/routes\.port: would not say which host of the pattern/],
  },

  {
    what: 'a pattern whose URL is one host',
    upstreams: { 'a.yaml': `name: '*.pkg.dev'\n${GHCR}` },
    problems: [/:2:1 url: must name the pattern itself, .*: write url: https:\/\/\*\.pkg\.dev$/],
  },

  // listeners
  {
    what: 'a default that is no upstream',
    gateway: 'listen: { address: ":5000", default: ghrc.io }',
    problems: [/:1:29 listen\.default: no upstream is called ghrc\.io; did you mean ghcr\.io\?/],
  },
  {
    what: 'one address twice',
    gateway: 'listen: [{ address: ":5000" }, { address: "127.0.0.1:5000" }]',
    problems: [/:1:34 listen\[1\]\.address: takes the same port as listen\[0\]/],
  },
  {
    what: 'an admin port that clients use',
    gateway: 'admin: { address: "127.0.0.1:5000" }',
    problems: [/admin\.address: port 5000 is taken by a listener for clients/],
  },
  {
    what: "a default on another upstream's own port",
    gateway: 'listen: { address: ":5002", default: a }',
    upstreams: { 'a.yaml': GHCR, 'b.yaml': `${GHCR}\nroutes: { port: 5002 }` },
    problems: [/listen\.default: port 5002 belongs to upstream b by its routes\.port, so it cannot default to a/],
  },
]

describe('a configuration is refused for', () => {
  for (const { what, gateway = '', upstreams = { 'ghcr.io.yaml': GHCR }, problems } of CASES) {
    it(what, () => {
      const files = Object.fromEntries(Object.entries(upstreams).map(([name, text]) => [`upstreams.d/${name}`, text]))
      const found = refuse({ 'entrepot.yaml': gateway, ...files })
      assert.equal(found.length, problems.length, found.join('\n'))
      for (const [index, expected] of problems.entries()) assert.match(found[index] ?? '', expected)
      assert.doesNotMatch(found.join('\n'), /hunter2/)
    })
  }
})

describe('a configuration is accepted with', () => {
  const accepted: [string, string][] = [
    ['credentials that are said to be shared', `${GHCR}\naccess: shared\n${AUTH}`],
    ['plain-text credentials on loopback', `url: http://127.0.0.1:5000\naccess: shared\n${AUTH}`],
    [
      'plain-text credentials that are said to be meant',
      `url: http://a.example\nallowPlaintextCredentials: true\naccess: shared\n${AUTH}`,
    ],
    [
      'a helper on a pattern',
      `name: '*.dkr.ecr.eu-west-1.amazonaws.com'\nurl: https://*.dkr.ecr.eu-west-1.amazonaws.com\naccess: shared\nauth: { helper: ecr-login }`,
    ],
    ['a plain-HTTP upstream without credentials', 'url: http://a.example:5000'],
    ['rules by repository', `${GHCR}\nallow: ['acme/**']\ndeny: [acme/secret-*]`],
    ['a mirror that may not resolve', 'url: [{ url: https://fast.example, capabilities: [pull] }, https://a.example]'],
  ]
  for (const [what, text] of accepted) {
    it(what, () => assert.equal(accept({ 'upstreams.d/a.yaml': text }).upstreams.length, 1))
  }

  it('credentials without access: shared where every client shows who it is', () => {
    const gateways = ['clients: { htpasswd: ht, networks: [10.0.0.0/8] }', 'clients: { htpasswd: ht, require: any }']
    for (const gateway of gateways) {
      const files = { 'entrepot.yaml': gateway, ht: HTPASSWD, 'upstreams.d/a.yaml': `${GHCR}\n${AUTH}` }
      assert.equal(accept(files).upstreams[0]?.access, undefined)
    }
  })

  it('credentials without access: shared in an upstream that is for some users', () => {
    const config = accept({
      'entrepot.yaml': 'clients: { htpasswd: ht, networks: [10.0.0.0/8], require: any }',
      ht: HTPASSWD,
      'upstreams.d/a.yaml': `${GHCR}\n${AUTH}\nclients: { users: [ci] }`,
    })
    assert.deepEqual(config.upstreams[0]?.clients, { users: ['ci'] })
  })

  it('a pattern beside a name and a wider pattern that cover it', () => {
    const config = accept({
      'upstreams.d/a.yaml': `name: '*'\nurl: https://*`,
      'upstreams.d/b.yaml': `name: '*.pkg.dev'\nurl: https://*.pkg.dev`,
      'upstreams.d/c.yaml': `name: eu.pkg.dev\n${GHCR}`,
    })
    assert.deepEqual(
      config.upstreams.map(({ isPattern }) => isPattern),
      [true, true, false],
    )
  })
})
