import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { planProbes } from '../../../src/cli/probe-plan.ts'
import { runProgram } from '../../../src/cli/program.ts'
import { hintFor } from '../../../src/cli/hints.ts'
import type { ProbedUpstream } from '../../../src/cli/runtime.ts'
import { GatewayError, type ErrorCode } from '../../../src/errors.ts'
import { accept, TestConfiguration } from '../config/configuration.ts'
import { probed, step, TestProcess, TestRuntime, testWorld } from './stand-ins.ts'

const AUTH =
  'access: shared\nauth: [{ username: bob, password: x, repositories: [acme/**] }, { username: al, password: y }]\n'

async function check(
  files: Readonly<Record<string, string>>,
  probes: readonly ProbedUpstream[],
  words: readonly string[] = [],
): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  using folder = new TestConfiguration(files)
  const world = testWorld(folder.folder)
  const runtime = new TestRuntime()
  runtime.probes = probes
  const code = await runProgram({
    arguments: ['check', ...words],
    openRuntime: () => Promise.resolve(runtime),
    world,
    events: new TestProcess(),
  })
  return { code, out: world.out.text, err: world.err.text }
}

function failing(code: ErrorCode, message: string): () => Promise<never> {
  return () => Promise.reject(new GatewayError(code, message))
}

describe('check', () => {
  it('prints a row for each upstream and exits with 0 when all of them answer', async () => {
    const { code, out } = await check({}, [probed('ghcr.io', [{}])])
    assert.equal(code, 0)
    assert.equal(
      out,
      `ok  configuration with 1 upstream

  UPSTREAM  DNS   TLS   AUTH  HEAD  FOUND
  ghcr.io   7 ms  7 ms  7 ms  ${/(\d+) ms +anonymous/.exec(out)?.[1]} ms  anonymous
`,
    )
  })

  it('exits with 1 when one fails, stops its row there, and says below what failed and what to do', async () => {
    const { code, out } = await check({}, [
      probed('ghcr.io', [{ dns: step('dns (ENOTFOUND)', false, 'ENOTFOUND'), connect: step('not tried', false) }]),
    ])
    assert.equal(code, 1)
    assert.match(out, /ghcr\.io {3}FAILED {2}- {4}- {5}- {5}see below/)
    assert.match(out, /ghcr\.io: dns: dns \(ENOTFOUND\)\n {4}DNS knows no such host/)
  })

  it('says clearly that a password is wrong, also where only the HEAD shows it', async () => {
    const head = failing('CREDENTIALS_REJECTED', 'HEAD ghcr.io/entrepot/probe:latest: 401')
    const { code, out } = await check({}, [probed('ghcr.io', [{}], head)])
    assert.equal(code, 1)
    assert.match(out, /ghcr\.io {3}7 ms {2}7 ms {2}FAILED {2}- {5}see below/)
    assert.match(out, /ghcr\.io: auth: wrong user name or password: HEAD/)
  })

  const answers: [ErrorCode, string, number][] = [
    ['MANIFEST_UNKNOWN', 'ghcr.io', 0],
    ['NAME_UNKNOWN', 'ghcr.io', 0],
    ['UPSTREAM_DENIED', 'ghcr.io', 0], // an image nobody promised may be private
    ['UPSTREAM_DENIED', 'quay.io', 1], // a public one may not
    ['UPSTREAM_THROTTLED', 'ghcr.io', 1],
    ['UPSTREAM_UNREACHABLE', 'ghcr.io', 1],
  ]
  for (const [answer, name, expected] of answers) {
    it(`takes ${answer} of ${name} for ${expected === 0 ? 'an answer' : 'a failure'}`, async () => {
      const file = { [`upstreams.d/${name}.yaml`]: `url: https://${name}` }
      assert.equal((await check(file, [probed(name, [{}], failing(answer, 'x'))])).code, expected)
    })
  }

  it('has a row for each endpoint and for each credential', async () => {
    const { out } = await check({ 'upstreams.d/ghcr.io.yaml': `url: https://ghcr.io\n${AUTH}` }, [
      probed('ghcr.io', [{ endpoint: 'a.example' }, { endpoint: 'b.example' }]),
    ])
    const rows = [...out.matchAll(/^ {2}(ghcr\.io .*?) {2,}/gm)].map(([, name]) => name)
    assert.deepEqual(rows, [
      'ghcr.io at a.example for entrepot/probe',
      'ghcr.io at b.example for entrepot/probe',
      'ghcr.io at a.example for acme/probe',
      'ghcr.io at b.example for acme/probe',
    ])
  })

  it('makes text of an upstream harmless before it prints it', async () => {
    const { out } = await check({}, [probed('ghcr.io', [{ auth: step('\u001b[2Jowned\nok  all is well', false) }])])
    assert.match(out, /ghcr\.io: auth: owned ok {2}all is well\n/)
    // eslint-disable-next-line no-control-regex -- that there is none is what is tested
    assert.doesNotMatch(out, /\u001b/)
  })

  it('says where a registry is reached without TLS', async () => {
    const { out } = await check({}, [probed('ghcr.io', [{ connect: step('plain http, 192.0.2.1') }])])
    assert.match(out, /no TLS/)
  })

  it('calls nobody with --offline', async () => {
    const { code, out } = await check({}, [probed('ghcr.io', [{ dns: step('', false) }])], ['--offline'])
    assert.deepEqual([code, out], [0, 'ok  configuration with 1 upstream, none of them called\n'])
  })

  it('prints one JSON document with --json', async () => {
    const { code, out, err } = await check({}, [probed('ghcr.io', [{ auth: step('refused', false) }])], ['--json'])
    const document: unknown = JSON.parse(out)
    assert.deepEqual(document, {
      ok: false,
      problems: [],
      warnings: [],
      upstreams: [
        {
          upstream: 'ghcr.io',
          endpoint: 'ghcr.io',
          repository: 'entrepot/probe',
          ok: false,
          steps: [
            { step: 'dns', ok: true, detail: '192.0.2.1', ms: 7 },
            { step: 'tls', ok: true, detail: 'TLSv1.3', ms: 7 },
            { step: 'auth', ok: false, detail: 'refused', ms: 7 },
          ],
        },
      ],
    })
    assert.deepEqual([code, err], [1, ''])
  })

  it('prints the problems of a wrong configuration as JSON too, and exits with 2', async () => {
    const { code, out } = await check({ 'entrepot.yaml': 'dat: x' }, [], ['--json'])
    assert.equal(code, 2)
    assert.deepEqual(JSON.parse(out), {
      ok: false,
      problems: [
        { file: 'entrepot.yaml', line: 1, column: 1, key: 'dat', message: 'is no known key; did you mean data?' },
      ],
      warnings: [],
      upstreams: [],
    })
  })

  it('warns of what is no error and still exits with 0', async () => {
    const upstream = 'url: https://ghcr.io\naccess: shared\nauth: { username: u, password: written }'
    const { code, err } = await check({ 'upstreams.d/ghcr.io.yaml': upstream }, [], ['--offline'])
    assert.equal(code, 0)
    assert.match(
      err,
      /^warning: upstreams\.d\/ghcr\.io\.yaml:3:22 auth\.password: the secret itself is written here; write env:NAME or file:PATH\n$/,
    )
  })
})

describe('the plan of probes', () => {
  it('asks a shipped registry for a public image and any other for one that need not exist', () => {
    assert.deepEqual(planProbes({ name: 'docker.io', auth: undefined }), [
      { repository: 'library/alpine', tag: 'latest', isKnown: true },
    ])
    assert.deepEqual(planProbes({ name: 'corp', auth: undefined }), [
      { repository: 'entrepot/probe', tag: 'latest', isKnown: false },
    ])
  })

  it('tries each credential by a repository it is for', () => {
    const [upstream] = accept({ 'upstreams.d/corp.yaml': `url: https://corp.example\n${AUTH}` }).upstreams
    assert.ok(upstream)
    assert.deepEqual(
      planProbes(upstream).map(({ repository }) => repository),
      ['entrepot/probe', 'acme/probe'],
    )
  })
})

describe('a hint', () => {
  const cases: [string, RegExp | undefined][] = [
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', /network\.ca/],
    ['ERR_TLS_CERT_ALTNAME_INVALID', /other host names/],
    ['ECONNREFUSED', /nothing listens/],
    ['NO_ANSWER', /network\.proxy/],
    ['ERR_SSL_WRONG_VERSION_NUMBER', /does not speak TLS/],
    ['CREDENTIALS_REJECTED', undefined],
    ['constructor', undefined],
  ]
  for (const [code, hint] of cases) {
    it(`for ${code} is ${hint === undefined ? 'not needed' : 'given'}`, () => {
      if (hint === undefined) assert.equal(hintFor(code), undefined)
      else assert.match(hintFor(code) ?? '', hint)
    })
  }
})
