/** The whole matrix of wire.md 1.1: every way to name an upstream, every combination, every refusal. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nsValues, route, type RouteRequest, type Via } from '../../../src/routing/route.ts'
import { RouteTable } from '../../../src/routing/table.ts'

const table = RouteTable.from(
  [
    { upstream: 'docker.io', place: 'docker.io.yaml:1:1', hosts: ['docker-io.gw.example'], port: 5001, prefix: 'hub' },
    { upstream: 'ghcr.io', place: 'ghcr.io.yaml:1:1', hosts: ['ghcr-io.gw.example'], port: 5002 },
    { upstream: 'quay.io', place: 'quay.io.yaml:1:1', hosts: ['quay.gw.example:8443'], port: 5003 },
    { upstream: 'registry.k8s.io', place: 'k8s.yaml:1:1', aliases: ['k8s.gcr.io'], port: 5004, prefix: 'mirror/k8s' },
    { upstream: 'corp.example:5000', place: 'corp.yaml:1:1', prefix: 'corp' },
    { upstream: '*.pkg.dev', place: 'gar.yaml:1:1' },
    { upstream: 'europe-docker.pkg.dev', place: 'gar-eu.yaml:1:1' },
    { upstream: '*.dkr.ecr.*.amazonaws.com', place: 'ecr.yaml:1:1' },
  ],
  { ownHosts: ['registry.example'] },
)
const wide = RouteTable.from([
  { upstream: 'docker.io', place: 'docker.io.yaml:1:1' },
  { upstream: '*', place: 'any.yaml:1:1' },
])

type Options = Partial<Omit<RouteRequest, 'listener' | 'ns'>> & {
  readonly port?: number
  readonly default?: string | undefined
  readonly table?: RouteTable
}
interface Found {
  readonly upstream: string
  readonly rest: string
  readonly via: Via
  readonly pattern?: string
  readonly outer?: string
  readonly stripped?: string
  readonly name?: string
  readonly ns?: string
}
type Expected = Found | 404 | 400 | 'unrouted'
type Row = readonly [target: string, expected: Expected, options?: Options]

const HUB = 'library/alpine/manifests/3'
const APP = 'org/app/manifests/1'
const hub = (via: Via, more: Partial<Found> = {}): Found => ({
  upstream: 'docker.io',
  rest: HUB,
  via,
  name: 'library/alpine',
  ...more,
})
const ghcr = (via: Via, more: Partial<Found> = {}): Found => ({
  upstream: 'ghcr.io',
  rest: APP,
  via,
  name: 'org/app',
  ...more,
})
const noDefault = { default: undefined }
const hub5001 = { port: 5001, host: 'gw:5001', default: undefined }
const ghcr5002 = { port: 5002, host: 'gw:5002', default: undefined }

const modes: readonly Row[] = [
  // default
  [`/v2/${HUB}`, hub('default')],
  [`/v2/${APP}`, ghcr('default'), { default: 'ghcr.io' }],
  [`/v2/${APP}`, 404, noDefault],
  [`/v2/${APP}`, 404, { default: 'not-declared.example' }],
  ['/v2/', { upstream: 'docker.io', rest: '', via: 'default' }],
  ['/v2', { upstream: 'docker.io', rest: '', via: 'default' }],
  ['/v2/', 'unrouted', noDefault],
  ['/v2', 'unrouted', noDefault],
  ['/v2/_catalog', 'unrouted', noDefault],
  ['/v2/_catalog', { upstream: 'docker.io', rest: '_catalog', via: 'default' }],
  // ns
  [`/v2/${HUB}?ns=docker.io`, hub('ns', { ns: 'docker.io' })],
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' })],
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), noDefault],
  [`/v2/${APP}?ns=GHCR.io`, ghcr('ns', { ns: 'GHCR.io' })],
  [`/v2/${APP}?ns=ghcr.io%3A443`, ghcr('ns', { ns: 'ghcr.io:443' })],
  [`/v2/${APP}?ns=ghcr.io:443`, ghcr('ns', { ns: 'ghcr.io:443' })],
  [`/v2/${APP}?ns=ghcr.io.`, ghcr('ns', { ns: 'ghcr.io.' })],
  [`/v2/${APP}?n%73=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' })],
  [`/v2/${APP}?ns=gh%63r.io`, ghcr('ns', { ns: 'ghcr.io' })],
  [`/v2/${APP}?n=5&ns=ghcr.io&last=a`, ghcr('ns', { ns: 'ghcr.io' })],
  [`/v2/${HUB}?ns=registry-1.docker.io`, hub('ns', { ns: 'registry-1.docker.io' })],
  [`/v2/${HUB}?ns=index.docker.io`, hub('ns', { ns: 'index.docker.io' })],
  [`/v2/${HUB}?ns=registry.hub.docker.com`, hub('ns', { ns: 'registry.hub.docker.com' })],
  [
    `/v2/pause/manifests/1?ns=k8s.gcr.io`,
    { upstream: 'registry.k8s.io', rest: 'pause/manifests/1', via: 'ns', name: 'pause', ns: 'k8s.gcr.io' },
  ],
  [
    `/v2/${APP}?ns=corp.example%3A5000`,
    { upstream: 'corp.example:5000', rest: APP, via: 'ns', name: 'org/app', ns: 'corp.example:5000' },
  ],
  [`/v2/${APP}?ns=corp.example`, 404],
  [`/v2/${APP}?ns=corp.example%3A443`, 404],
  [`/v2/?ns=ghcr.io`, { upstream: 'ghcr.io', rest: '', via: 'ns', ns: 'ghcr.io' }],
  // host and SNI
  [`/v2/${HUB}`, hub('host'), { host: 'docker-io.gw.example', default: undefined }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr-io.gw.example' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr-io.gw.example:5000' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'GHCR-IO.gw.example' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr-io.gw.example.' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr.io' }],
  [`/v2/${APP}`, { upstream: 'quay.io', rest: APP, via: 'host', name: 'org/app' }, { host: 'quay.gw.example:8443' }],
  [`/v2/${APP}`, 404, { host: 'quay.gw.example:9999', default: undefined }],
  [`/v2/${APP}`, 404, { host: 'unknown.gw.example', default: undefined }],
  [`/v2/${HUB}`, hub('default'), { host: 'unknown.gw.example' }],
  [`/v2/${APP}`, ghcr('host'), { host: '10.0.0.1:5000', serverName: 'ghcr-io.gw.example' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr-io.gw.example', serverName: 'ghcr-io.gw.example' }],
  [`/v2/${APP}`, ghcr('host'), { host: 'ghcr-io.gw.example', serverName: 'other.example' }],
  [`/v2/${APP}`, 400, { host: 'ghcr-io.gw.example', serverName: 'docker-io.gw.example' }],
  [`/v2/${HUB}`, hub('default'), { host: '[::1]:5000' }],
  // port
  [`/v2/${HUB}`, hub('port'), hub5001],
  [`/v2/${APP}`, ghcr('port'), ghcr5002],
  [`/v2/`, { upstream: 'ghcr.io', rest: '', via: 'port' }, ghcr5002],
  [`/v2/_catalog`, { upstream: 'ghcr.io', rest: '_catalog', via: 'port' }, ghcr5002],
  [`/v2/${APP}`, ghcr('port'), { ...ghcr5002, host: 'docker-io.gw.example' }],
  [`/v2/${APP}`, ghcr('port'), { ...ghcr5002, default: 'docker.io' }],
  // inner prefix
  [`/v2/docker.io/${HUB}`, hub('inner', { stripped: 'docker.io', name: 'docker.io/library/alpine' })],
  [`/v2/ghcr.io/${APP}`, ghcr('inner', { stripped: 'ghcr.io', name: 'ghcr.io/org/app' })],
  [`/v2/ghcr.io/${APP}`, ghcr('inner', { stripped: 'ghcr.io', name: 'ghcr.io/org/app' }), noDefault],
  [`/v2/hub/${HUB}`, hub('inner', { stripped: 'hub', name: 'hub/library/alpine' })],
  [`/v2/index.docker.io/${HUB}`, hub('inner', { stripped: 'index.docker.io', name: 'index.docker.io/library/alpine' })],
  [
    `/v2/mirror/k8s/pause/manifests/1`,
    {
      upstream: 'registry.k8s.io',
      rest: 'pause/manifests/1',
      via: 'inner',
      stripped: 'mirror/k8s',
      name: 'mirror/k8s/pause',
    },
  ],
  [`/v2/mirror/${APP}`, { upstream: 'docker.io', rest: `mirror/${APP}`, via: 'default', name: 'mirror/org/app' }],
  [
    `/v2/corp/${APP}`,
    { upstream: 'corp.example:5000', rest: APP, via: 'inner', stripped: 'corp', name: 'corp/org/app' },
  ],
  [`/v2/ghcr.io/`, { upstream: 'ghcr.io', rest: '', via: 'inner', stripped: 'ghcr.io' }],
  [`/v2/ghcr.io/_catalog`, { upstream: 'ghcr.io', rest: '_catalog', via: 'inner', stripped: 'ghcr.io' }],
  [
    `/v2/ghcr.io/org/app/tags/list?n=5`,
    { upstream: 'ghcr.io', rest: 'org/app/tags/list', via: 'inner', stripped: 'ghcr.io', name: 'ghcr.io/org/app' },
  ],
  // a repository that is called like a prefix, not one below it
  [`/v2/hub/manifests/1`, { upstream: 'docker.io', rest: 'library/hub/manifests/1', via: 'default', name: 'hub' }],
  [`/v2/corp/tags/list`, { upstream: 'docker.io', rest: 'library/corp/tags/list', via: 'default', name: 'corp' }],
  // outer prefix
  [`/docker.io/v2/${HUB}`, hub('outer', { outer: 'docker.io' })],
  [`/ghcr.io/v2/${APP}`, ghcr('outer', { outer: 'ghcr.io' })],
  [`/ghcr.io/v2/${APP}`, ghcr('outer', { outer: 'ghcr.io' }), noDefault],
  [`/hub/v2/${HUB}`, hub('outer', { outer: 'hub' })],
  [`/docker.io/v2/`, { upstream: 'docker.io', rest: '', via: 'outer', outer: 'docker.io' }],
  [`/docker.io/v2`, { upstream: 'docker.io', rest: '', via: 'outer', outer: 'docker.io' }],
  [`/ghcr.io/v2/_catalog`, { upstream: 'ghcr.io', rest: '_catalog', via: 'outer', outer: 'ghcr.io' }],
  [
    `/mirror/k8s/v2/pause/manifests/1`,
    { upstream: 'registry.k8s.io', rest: 'pause/manifests/1', via: 'outer', outer: 'mirror/k8s', name: 'pause' },
  ],
  // K3s: the path verbatim, without /v2
  [`/ghcr.io/${APP}`, ghcr('outer', { outer: 'ghcr.io' })],
  [`/docker.io/alpine/manifests/3`, hub('outer', { outer: 'docker.io', name: 'alpine' })],
  [
    `/ghcr.io/org/app/tags/list`,
    { upstream: 'ghcr.io', rest: 'org/app/tags/list', via: 'outer', outer: 'ghcr.io', name: 'org/app' },
  ],
]

const combined: readonly Row[] = [
  // containerd with override_path, BuildKit mirrors with a path, K3s rewrite: inner prefix and ns
  [`/v2/ghcr.io/${APP}?ns=ghcr.io`, ghcr('ns', { stripped: 'ghcr.io', name: 'ghcr.io/org/app', ns: 'ghcr.io' })],
  [
    `/v2/docker.io/${HUB}?ns=docker.io`,
    hub('ns', { stripped: 'docker.io', name: 'docker.io/library/alpine', ns: 'docker.io' }),
  ],
  [
    `/v2/hub/${HUB}?ns=registry-1.docker.io`,
    hub('ns', { stripped: 'hub', name: 'hub/library/alpine', ns: 'registry-1.docker.io' }),
  ],
  // stripped once only: the rest is the repository's own
  [
    `/v2/ghcr.io/ghcr.io/${APP}?ns=ghcr.io`,
    {
      upstream: 'ghcr.io',
      rest: `ghcr.io/${APP}`,
      via: 'ns',
      stripped: 'ghcr.io',
      name: 'ghcr.io/ghcr.io/org/app',
      ns: 'ghcr.io',
    },
  ],
  // outer prefix and ns, as containerd sends it for host."http://gw:5000/docker.io"
  [`/docker.io/v2/${HUB}?ns=docker.io`, hub('outer', { outer: 'docker.io', ns: 'docker.io' })],
  [`/ghcr.io/v2/${APP}?ns=ghcr.io`, ghcr('outer', { outer: 'ghcr.io', ns: 'ghcr.io' })],
  [`/ghcr.io/${APP}?ns=ghcr.io`, ghcr('outer', { outer: 'ghcr.io', ns: 'ghcr.io' })],
  [
    `/docker.io/v2/docker.io/${HUB}`,
    hub('outer', { outer: 'docker.io', stripped: 'docker.io', name: 'docker.io/library/alpine' }),
  ],
  [
    `/docker.io/v2/docker.io/${HUB}?ns=docker.io`,
    hub('outer', { outer: 'docker.io', stripped: 'docker.io', name: 'docker.io/library/alpine', ns: 'docker.io' }),
  ],
  // port or host with an ns or a prefix for the same upstream
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), ghcr5002],
  [`/v2/ghcr.io/${APP}`, ghcr('port', { stripped: 'ghcr.io', name: 'ghcr.io/org/app' }), ghcr5002],
  [
    `/v2/ghcr.io/${APP}?ns=ghcr.io`,
    ghcr('ns', { stripped: 'ghcr.io', name: 'ghcr.io/org/app', ns: 'ghcr.io' }),
    ghcr5002,
  ],
  [
    `/v2/ghcr.io/${APP}`,
    ghcr('host', { stripped: 'ghcr.io', name: 'ghcr.io/org/app' }),
    { host: 'ghcr-io.gw.example' },
  ],
  [`/v2/docker.io/${HUB}`, hub('port', { stripped: 'docker.io', name: 'docker.io/library/alpine' }), hub5001],
  // ns wins over port and host, outer over both
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), hub5001],
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), { host: 'docker-io.gw.example' }],
  [`/ghcr.io/v2/${APP}`, ghcr('outer', { outer: 'ghcr.io' }), hub5001],
  [`/ghcr.io/v2/${APP}`, ghcr('outer', { outer: 'ghcr.io' }), { host: 'docker-io.gw.example' }],
  // ns that names ourselves selects nothing
  [`/v2/docker.io/${HUB}?ns=gw%3A5000`, hub('inner', { stripped: 'docker.io', name: 'docker.io/library/alpine' })],
  [`/v2/${HUB}?ns=gw:5000`, hub('default')],
  [`/v2/${HUB}?ns=GW%3A5000`, hub('default')],
  [`/v2/${HUB}?ns=gw`, hub('default')],
  [`/v2/${HUB}?ns=registry.example`, hub('default')],
  [`/v2/ghcr.io/${APP}?ns=registry.example`, ghcr('inner', { stripped: 'ghcr.io', name: 'ghcr.io/org/app' })],
  [`/v2/${APP}?ns=gw:5002`, ghcr('port'), ghcr5002],
  // another address of ours keeps what it means there
  [`/v2/${APP}?ns=gw:5002`, ghcr('ns', { ns: 'gw:5002' })],
  [`/v2/${APP}?ns=ghcr-io.gw.example`, ghcr('ns', { ns: 'ghcr-io.gw.example' })],
  [`/v2/${APP}?ns=ghcr-io.gw.example`, ghcr('ns', { ns: 'ghcr-io.gw.example' }), { host: 'ghcr-io.gw.example' }],
  [`/v2/${APP}?ns=gw:5999`, 404],
  // the gateway answers for ghcr.io in DNS
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), { host: 'ghcr.io' }],
  // OCI-Namespace, where a client can set a header but no query
  [`/v2/${APP}`, ghcr('ns', { ns: 'ghcr.io' }), { ociNamespace: 'ghcr.io' }],
  [`/v2/${APP}`, ghcr('ns', { ns: 'ghcr.io' }), { ociNamespace: ' ghcr.io ' }],
  [`/v2/${APP}?ns=ghcr.io`, ghcr('ns', { ns: 'ghcr.io' }), { ociNamespace: 'quay.io' }],
  [`/ghcr.io/v2/${APP}`, ghcr('outer', { outer: 'ghcr.io' }), { ociNamespace: 'quay.io' }],
  [`/v2/${HUB}`, hub('default'), { ociNamespace: 'gw:5000' }],
  [`/v2/${APP}`, 404, { ociNamespace: 'unknown.example' }],
  [`/v2/ghcr.io/${APP}`, 400, { ociNamespace: 'quay.io' }],
  // v2 twice (containerd#6634)
  [`/v2/ghcr.io/v2/${APP}`, ghcr('inner', { stripped: 'ghcr.io', name: 'ghcr.io/v2/org/app' })],
  [
    `/v2/docker.io/v2/${HUB}?ns=docker.io`,
    hub('ns', { stripped: 'docker.io', name: 'docker.io/v2/library/alpine', ns: 'docker.io' }),
  ],
  [`/v2/docker.io/v2/`, { upstream: 'docker.io', rest: '', via: 'inner', stripped: 'docker.io' }],
  [
    `/v2/ghcr.io/v2/manifests/1`,
    { upstream: 'ghcr.io', rest: 'v2/manifests/1', via: 'inner', stripped: 'ghcr.io', name: 'ghcr.io/v2' },
  ],
]

const library: readonly Row[] = [
  ['/v2/alpine/manifests/3', hub('default', { name: 'alpine' })],
  ['/v2/docker.io/alpine/manifests/3', hub('inner', { stripped: 'docker.io', name: 'docker.io/alpine' })],
  ['/v2/alpine/manifests/3?ns=docker.io', hub('ns', { name: 'alpine', ns: 'docker.io' })],
  ['/v2/alpine/manifests/3', hub('port', { name: 'alpine' }), hub5001],
  ['/v2/alpine/manifests/3', hub('host', { name: 'alpine' }), { host: 'docker-io.gw.example' }],
  ['/docker.io/v2/alpine/manifests/3', hub('outer', { name: 'alpine', outer: 'docker.io' })],
  ['/v2/alpine/tags/list', hub('default', { name: 'alpine', rest: 'library/alpine/tags/list' })],
  [
    '/v2/docker.io/alpine/tags/list',
    hub('inner', { stripped: 'docker.io', name: 'docker.io/alpine', rest: 'library/alpine/tags/list' }),
  ],
  ['/v2/alpine/blobs/sha256:x', hub('default', { name: 'alpine', rest: 'library/alpine/blobs/sha256:x' })],
  ['/v2/alpine/referrers/sha256:x', hub('default', { name: 'alpine', rest: 'library/alpine/referrers/sha256:x' })],
  [
    '/v2/pause/manifests/1',
    { upstream: 'registry.k8s.io', rest: 'pause/manifests/1', via: 'port', name: 'pause' },
    { port: 5004 },
  ],
  [
    '/v2/quay.io/app/manifests/1',
    { upstream: 'quay.io', rest: 'app/manifests/1', via: 'inner', stripped: 'quay.io', name: 'quay.io/app' },
  ],
]

const EU = 'europe-docker.pkg.dev'
const US = 'us-docker.pkg.dev'
const ECR = '123456789012.dkr.ecr.eu-west-1.amazonaws.com'
const gar = (via: Via, more: Partial<Found> = {}): Found => ({
  upstream: US,
  pattern: '*.pkg.dev',
  rest: APP,
  via,
  name: 'org/app',
  ...more,
})
const patterns: readonly Row[] = [
  [`/v2/${APP}?ns=${US}`, gar('ns', { ns: US })],
  [`/v2/${APP}?ns=US-docker.pkg.dev`, gar('ns', { ns: 'US-docker.pkg.dev' })],
  [`/v2/${US}/${APP}`, gar('inner', { stripped: US, name: `${US}/org/app` })],
  [`/v2/${US}/${APP}?ns=${US}`, gar('ns', { stripped: US, name: `${US}/org/app`, ns: US })],
  [`/${US}/v2/${APP}`, gar('outer', { outer: US })],
  [`/${US}/v2/${APP}?ns=${US}`, gar('outer', { outer: US, ns: US })],
  [`/${US}/${APP}`, gar('outer', { outer: US })],
  [`/v2/${APP}?ns=${EU}`, { upstream: EU, rest: APP, via: 'ns', name: 'org/app', ns: EU }],
  [
    `/v2/${ECR}/${APP}`,
    {
      upstream: ECR,
      pattern: '*.dkr.ecr.*.amazonaws.com',
      rest: APP,
      via: 'inner',
      stripped: ECR,
      name: `${ECR}/org/app`,
    },
  ],
  [
    `/v2/${APP}?ns=${ECR}`,
    { upstream: ECR, pattern: '*.dkr.ecr.*.amazonaws.com', rest: APP, via: 'ns', name: 'org/app', ns: ECR },
  ],
  [`/v2/${APP}?ns=a.b.pkg.dev`, 404],
  [`/v2/${APP}?ns=pkg.dev`, 404],
  [`/v2/${APP}?ns=x.pkg.dev.evil.example`, 404],
  [`/v2/${APP}?ns=${US}%3A8443`, 404],
  [`/v2/${APP}?ns=-x.pkg.dev`, 404],
  [`/v2/${US}/${APP}?ns=x.pkg.dev`, 400],
  // a pattern for everything never leads inside or back to ourselves
  [
    `/v2/${APP}?ns=any.example.com`,
    { upstream: 'any.example.com', pattern: '*', rest: APP, via: 'ns', name: 'org/app', ns: 'any.example.com' },
    { table: wide },
  ],
  [
    `/v2/any.example.com/${APP}`,
    {
      upstream: 'any.example.com',
      pattern: '*',
      rest: APP,
      via: 'inner',
      stripped: 'any.example.com',
      name: 'any.example.com/org/app',
    },
    { table: wide },
  ],
  [
    `/v2/${APP}?ns=docker.io`,
    { upstream: 'docker.io', rest: APP, via: 'ns', name: 'org/app', ns: 'docker.io' },
    { table: wide },
  ],
  ...[
    '169.254.169.254',
    '127.0.0.1',
    '10.0.0.1:5000',
    '[::1]',
    '[::ffff:7f00:1]',
    '2130706433',
    '0x7f.1',
    'localhost',
    'metadata.google.internal',
    'db.local',
    'intern',
    'a..b',
    'router.lan',
  ].map((ns): Row => [`/v2/${APP}?ns=${ns}`, 404, { table: wide }]),
  [`/v2/gw.example.com/${APP}`, 404, { table: wide, host: 'gw.example.com' }],
  [`/gw.example.com/v2/${APP}`, 404, { table: wide, host: 'gw.example.com' }],
]

const refusals: readonly Row[] = [
  // unknown: never dialled
  [`/v2/${APP}?ns=unknown.example`, 404],
  [`/v2/${APP}?ns=169.254.169.254`, 404],
  [`/v2/${APP}?ns=http://ghcr.io`, 404],
  [`/v2/${APP}?ns=http%3A%2F%2F10.0.0.1`, 404],
  [`/v2/${APP}?ns=ghcr.io%2Fv2`, 404],
  [`/v2/${APP}?ns=user@ghcr.io`, 404],
  [`/v2/${APP}?ns=ghcr.io%00`, 404],
  [`/v2/${APP}?ns=ghcr.io%252e`, 404],
  [`/v2/${APP}?ns=ghcr.io+`, 404],
  [`/v2/${APP}?ns=ghcr.io%3A0`, 404],
  [`/v2/${APP}?ns=ghcr.io%3A99999`, 404],
  [`/v2/${APP}?ns=${'a'.repeat(5000)}`, 404],
  [`/v2/${APP}?ns=localhost`, 404],
  [`/v2/${APP}?ns=*.pkg.dev`, 404],
  [`/v2/?ns=unknown.example`, 404, noDefault],
  // malformed or contradicting
  [`/v2/${APP}?ns=`, 400],
  [`/v2/${APP}?ns`, 400],
  [`/v2/${APP}?ns=%zz`, 400],
  [`/v2/${APP}?ns=%ff`, 400],
  [`/v2/${APP}?ns=ghcr.io&ns=quay.io`, 400],
  [`/v2/${APP}?ns=ghcr.io&ns=ghcr.io`, 400],
  [`/v2/${APP}?ns=ghcr.io&%6es=quay.io`, 400],
  [`/v2/docker.io/${HUB}?ns=ghcr.io`, 400],
  [`/v2/ghcr.io/${APP}?ns=docker.io`, 400],
  [`/docker.io/v2/${HUB}?ns=ghcr.io`, 400],
  [`/docker.io/v2/ghcr.io/${APP}`, 400],
  [`/ghcr.io/v2/docker.io/${HUB}?ns=ghcr.io`, 400],
  // the name of a registry that is not declared, where a mirror of Hub was expected (diun#660)
  [`/v2/unknown.example/${APP}`, 404],
  [`/v2/unknown.example/${APP}`, 404, noDefault],
  [`/v2/localhost/${APP}`, 404],
  [`/v2/host:5000/${APP}`, 404],
  [`/v2/unknown.example/${APP}`, 404, hub5001],
  [`/v2/ghcr.io/${APP}`, 404, hub5001],
  [`/v2/ghcr.io/${APP}`, 404, { host: 'docker-io.gw.example' }],
  [`/v2/unknown.example/${APP}?ns=docker.io`, 404],
  [`/docker.io/v2/unknown.example/${APP}`, 404],
  [
    `/v2/docker.io/unknown.example/${APP}`,
    {
      upstream: 'docker.io',
      rest: `unknown.example/${APP}`,
      via: 'inner',
      stripped: 'docker.io',
      name: 'docker.io/unknown.example/org/app',
    },
  ],
  // a project of that name on another registry is its own affair
  [
    `/v2/docker.io/${HUB}`,
    { upstream: 'quay.io', rest: `docker.io/${HUB}`, via: 'port', name: 'docker.io/library/alpine' },
    { port: 5003 },
  ],
  // paths that are none of ours
  ['/', 404],
  ['/favicon.ico', 404],
  ['/v1/_ping', 404],
  ['//v2/', 404],
  ['/V2/', 404],
  ['/v2x/', 404],
  [`/unknown.example/v2/${APP}`, 404],
  [`/%64ocker.io/v2/${HUB}`, 404],
  [`/../v2/${HUB}`, 404],
  // Host
  [`/v2/${HUB}`, 400, { host: undefined }],
  ...[
    '',
    'a/b',
    'a?x',
    'a#x',
    'user@gw',
    'gw:5000:1',
    'gw:',
    'gw:x',
    'gw:99999',
    'gw:0',
    'g w',
    'gw\t',
    'a_b',
    'a..b',
    '.',
    '[::1',
    '::1',
    '[gw]',
    '%67w',
    'gw,gw',
    'ghcr-io.gw.example/',
    `${'a'.repeat(300)}.example`,
  ].map((host): Row => [`/v2/${HUB}`, 400, { host }]),
]

for (const [group, rows] of Object.entries({ modes, combined, library, patterns, refusals })) {
  test(`routes ${rows.length} requests: ${group}`, async (t) => {
    for (const [target, expected, options = {}] of rows) {
      const note = Object.keys(options)
        .filter((key) => key !== 'table')
        .map((key) => `${key}=${JSON.stringify(options[key as keyof Options])}`)
      await t.test([target.slice(0, 120), ...note].join(' '), () => {
        assert.deepEqual(outcomeOf(target, options), typeof expected === 'object' ? fullOf(expected) : expected)
      })
    }
  })
}

test('the matrix has more than a hundred rows', () => {
  assert.ok([modes, combined, library, patterns, refusals].flat().length > 200)
})

test('a refusal repeats nothing of the client but plain characters', () => {
  const answer = route(table, requestOf('/v2/a/manifests/1?ns=%22%3Cscript%3E%0d%0aX', {}))
  assert.equal(answer.kind, 'problem')
  assert.doesNotMatch('message' in answer ? answer.message : '', /[<>\r\n]/)
})

test('whatever comes in, only what is declared goes out, and nothing of the path is made up', () => {
  const declared = ['docker.io', 'ghcr.io', 'quay.io', 'registry.k8s.io', 'corp.example:5000', EU]
  const word = fc.oneof(
    fc.constantFrom(
      'v2',
      'hub',
      'corp',
      'mirror',
      'k8s',
      'manifests',
      'tags',
      'list',
      'library',
      '',
      '..',
      '%2e',
      US,
      ECR,
      ...declared,
    ),
    fc.string({ maxLength: 6 }),
  )
  const host = fc.oneof(fc.constantFrom('gw:5000', 'ghcr-io.gw.example', 'docker-io.gw.example', 'ghcr.io'), word)
  const input = fc.record({
    rawPath: fc.array(word, { maxLength: 7 }).map((words) => `/${words.join('/')}`),
    ns: fc.array(fc.oneof(word, word.map(encodeURIComponent)), { maxLength: 2 }),
    host,
    serverName: fc.option(host, { nil: undefined }),
    ociNamespace: fc.option(word, { nil: undefined }),
    listener: fc.record({
      port: fc.constantFrom(5000, 5001, 5002, 5003),
      defaultUpstream: fc.constantFrom('docker.io', 'quay.io', undefined),
    }),
  })
  fc.assert(
    fc.property(input, (asked) => {
      const answer = route(table, asked)
      if (answer.kind !== 'route') return
      const { upstream, pattern, rest, ociNamespace = 'none' } = answer
      assert.ok(pattern === undefined ? declared.includes(upstream) : /\.(?:pkg\.dev|amazonaws\.com)$/.test(upstream))
      assert.ok(asked.rawPath.endsWith(rest.replace(/^library\//, '')), `${asked.rawPath} ${rest}`)
      assert.match(ociNamespace, /^[\w.:[\]-]+$/)
    }),
    { numRuns: 20_000 },
  )
})

function outcomeOf(target: string, options: Options): unknown {
  const answer = route(options.table ?? table, requestOf(target, options))
  if (answer.kind === 'unrouted') return 'unrouted'
  if (answer.kind === 'problem') return answer.code === 'ROUTE_UNKNOWN' ? 404 : 400
  const { upstream, pattern, rest, via, outer, stripped, requestedName, ociNamespace } = answer
  return { upstream, pattern, rest, via, outer, stripped, name: requestedName, ns: ociNamespace }
}

function fullOf(found: Found): Record<keyof Found, string | undefined> {
  return { pattern: undefined, outer: undefined, stripped: undefined, name: undefined, ns: undefined, ...found }
}

function requestOf(target: string, options: Options): RouteRequest {
  const mark = target.indexOf('?')
  return {
    listener: {
      port: options.port ?? 5000,
      defaultUpstream: 'default' in options ? options.default : 'docker.io',
    },
    host: 'host' in options ? options.host : 'gw:5000',
    serverName: options.serverName,
    ns: mark === -1 ? [] : nsValues(target.slice(mark + 1)),
    ociNamespace: options.ociNamespace,
    rawPath: mark === -1 ? target : target.slice(0, mark),
  }
}
