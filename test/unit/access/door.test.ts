import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ClientAuth, type Caller, type CallerCertificate } from '../../../src/access/client-auth.ts'
import { Door, type ClientRules } from '../../../src/access/door.ts'
import { networkMatcher } from '../../../src/access/networks.ts'
import { codeOf, GatewayError, type ErrorCode } from '../../../src/errors.ts'
import { parseRepository } from '../../../src/oci/repository.ts'

const { signal } = new AbortController()
const repositoryOf = (name: string) => parseRepository(name) ?? assert.fail(name)

/** Passwords that are `secret of NAME`, asked for as `NAME PASSWORD`. */
const passwords = {
  userOf: async ({ authorization }: { authorization: string }): Promise<string | undefined> => {
    if (authorization === 'throttled') throw new GatewayError('LOGIN_THROTTLED', 'too many')
    const [user = '', password] = authorization.split(' ')
    return password === 'right' ? user : undefined
  },
}

interface Situation {
  readonly hasPasswords: boolean
  readonly networks: readonly string[] | undefined
  readonly hasCertificates: boolean
  readonly require: 'all' | 'any'
  readonly allow: readonly string[]
  readonly deny: readonly string[]
  readonly clients: ClientRules | undefined
}

function doorFor(situation: Situation): Door {
  const { hasPasswords, networks, hasCertificates, require, allow, deny, clients } = situation
  const hasAuth = hasPasswords || networks !== undefined || hasCertificates
  const auth = new ClientAuth({
    passwords: hasPasswords ? passwords : undefined,
    networks: networks && networkMatcher(networks),
    hasCertificates,
    require,
    file: 'entrepot.yaml',
  })
  const upstreams = new Map([['u', { allow, deny, clients, file: 'upstreams.d/u.yaml' }]])
  return new Door({ ...(hasAuth && { auth }), upstreams })
}

const OPEN: Situation = {
  hasPasswords: false,
  networks: undefined,
  hasCertificates: false,
  require: 'all',
  allow: ['**'],
  deny: [],
  clients: undefined,
}

function caller(given: Partial<Caller> = {}): Caller {
  return { address: '10.0.0.1', authorization: undefined, certificate: undefined, ...given }
}

/** What comes of a request: `in`, or the code and message it was refused with. */
async function outcomeOf(door: Door, who: Caller, repository: string): Promise<'in' | GatewayError> {
  try {
    const principal = door.asksWho ? await door.admit(who, signal) : undefined
    door.check(principal, { name: 'u', declared: 'u', repository: repositoryOf(repository) })
    return 'in'
  } catch (error) {
    if (error instanceof GatewayError) return error
    throw error
  }
}

test('a refusal names the key and the file that refused', async () => {
  const valid = (...names: string[]): CallerCertificate => ({ isValid: true, names })
  const rows: readonly (readonly [Partial<Situation>, Partial<Caller>, ErrorCode, string])[] = [
    [{ deny: ['a/*'] }, {}, 'DENIED_BY_RULE', 'u/a/b (deny in upstreams.d/u.yaml)'],
    [{ allow: ['b/*'] }, {}, 'DENIED_BY_RULE', 'u/a/b (allow in upstreams.d/u.yaml)'],
    [
      { networks: ['192.0.2.0/24'] },
      {},
      'CLIENT_DENIED',
      'clients from 10.0.0.1 may not pull here (clients.networks in entrepot.yaml)',
    ],
    [
      { hasCertificates: true },
      {},
      'CLIENT_DENIED',
      "a client certificate of this gateway's authority is needed and none was shown (tls.clientCa of the listener)",
    ],
    [
      { hasCertificates: true },
      { certificate: { isValid: false, reason: 'CERT_HAS_EXPIRED' } },
      'CLIENT_DENIED',
      "a client certificate of this gateway's authority is needed and this one is not good: CERT_HAS_EXPIRED (tls.clientCa of the listener)",
    ],
    [{ hasPasswords: true }, {}, 'UNAUTHENTICATED', 'no user and password were given'],
    [{ hasPasswords: true }, { authorization: 'ci wrong' }, 'UNAUTHENTICATED', 'wrong user or password'],
    [{ hasPasswords: true }, { authorization: 'throttled' }, 'LOGIN_THROTTLED', 'too many'],
    [
      { hasPasswords: true, clients: { users: ['ci'] } },
      { authorization: 'dev right' },
      'CLIENT_DENIED',
      'user dev may not pull from u here (clients.users in upstreams.d/u.yaml)',
    ],
    [
      { clients: { networks: ['192.0.2.0/24'] } },
      {},
      'CLIENT_DENIED',
      'clients from 10.0.0.1 may not pull from u here (clients.networks in upstreams.d/u.yaml)',
    ],
    [
      { hasCertificates: true, clients: { certificates: ['ci'] } },
      { certificate: valid('dev', 'dev.example') },
      'CLIENT_DENIED',
      'certificate dev may not pull from u here (clients.certificates in upstreams.d/u.yaml)',
    ],
    [
      { hasPasswords: true, networks: ['10.0.0.0/8'], require: 'any', clients: { users: ['ci'] } },
      {},
      'UNAUTHENTICATED',
      'u is for some users (clients.users in upstreams.d/u.yaml)',
    ],
  ]
  for (const [situation, who, code, message] of rows) {
    const outcome = await outcomeOf(doorFor({ ...OPEN, ...situation }), caller(who), 'a/b')
    assert.deepEqual([codeOf(outcome), outcome === 'in' ? outcome : outcome.message], [code, message])
  }
})

test('any name in a certificate counts, a user name in one does not', async () => {
  const certificate: CallerCertificate = { isValid: true, names: ['ci', 'spiffe://site/builder', 'n1.example'] }
  const withRules = (clients: ClientRules): Door => doorFor({ ...OPEN, hasCertificates: true, clients })
  assert.equal(await outcomeOf(withRules({ certificates: ['*.example'] }), caller({ certificate }), 'a'), 'in')
  assert.equal(await outcomeOf(withRules({ certificates: ['spiffe://site/*'] }), caller({ certificate }), 'a'), 'in')
  assert.equal(
    codeOf(await outcomeOf(withRules({ certificates: ['c'] }), caller({ certificate }), 'a')),
    'CLIENT_DENIED',
  )
  assert.equal(codeOf(await outcomeOf(withRules({ users: ['ci'] }), caller({ certificate }), 'a')), 'CLIENT_DENIED')
})

test('a certificate counts for nothing where the listener does not ask for one', async () => {
  const certificate: CallerCertificate = { isValid: true, names: ['ci'] }
  const door = doorFor({ ...OPEN, hasPasswords: true, require: 'any', clients: { certificates: ['ci'] } })
  assert.equal(codeOf(await outcomeOf(door, caller({ certificate, authorization: 'dev right' }), 'a')), 'CLIENT_DENIED')
})

test('a wrong password is not held against who is let in by its network, and gives no name', async () => {
  const base = { ...OPEN, hasPasswords: true, networks: ['10.0.0.0/8'], require: 'any' } as const
  for (const authorization of ['ci wrong', 'throttled', undefined]) {
    assert.equal(await outcomeOf(doorFor(base), caller({ authorization }), 'a'), 'in')
    const rules = doorFor({ ...base, clients: { users: ['ci'] } })
    assert.equal(codeOf(await outcomeOf(rules, caller({ authorization }), 'a')), 'UNAUTHENTICATED')
  }
})

test('an upstream that is not declared is refused', () => {
  const door = doorFor(OPEN)
  assert.throws(() => door.check(undefined, { name: 'x', declared: 'x', repository: undefined }), /x is not declared/)
  assert.equal(door.mayUse(undefined, 'x'), false)
  assert.equal(door.allows('x', repositoryOf('a')), false)
})

const USERS = ['ci', 'dev'] as const
const NAMES = ['n1', 'n2'] as const
const NETWORKS = { near: '10.0.0.0/8', far: '192.0.2.0/24' } as const
const REPOSITORIES = ['a', 'a/b', 'b/c'] as const
/** Pairs of a glob and the repositories it stands for, so that the model needs no globs. */
const GLOBS: readonly (readonly [string, readonly string[]])[] = [
  ['**', REPOSITORIES],
  ['a/*', ['a/b']],
  ['a/**', ['a', 'a/b']],
  ['b/c', ['b/c']],
]

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined })
const someOf = <T>(values: readonly T[]) => fc.subarray([...values], { minLength: 1 })
const situations = fc.record({
  hasPasswords: fc.boolean(),
  networks: optional(someOf(Object.values(NETWORKS))),
  hasCertificates: fc.boolean(),
  require: fc.constantFrom('all' as const, 'any' as const),
  allow: someOf(GLOBS),
  deny: fc.subarray(GLOBS.slice(1)),
  clients: optional(
    fc.record({
      users: optional(someOf(USERS)),
      certificates: optional(someOf(NAMES)),
      networks: optional(someOf(Object.values(NETWORKS))),
    }),
  ),
})
const callers = fc.record({
  network: fc.constantFrom('near' as const, 'far' as const, 'elsewhere' as const),
  login: optional(fc.record({ user: fc.constantFrom(...USERS, 'eve'), isRight: fc.boolean() })),
  certificate: optional(fc.record({ names: someOf(NAMES), isValid: fc.boolean() })),
  repository: fc.constantFrom(...REPOSITORIES),
})
type Generated = typeof situations extends fc.Arbitrary<infer T> ? T : never
type Asking = typeof callers extends fc.Arbitrary<infer T> ? T : never

const ADDRESSES = { near: '10.1.2.3', far: '192.0.2.9', elsewhere: '203.0.113.5' } as const

/** The model: who is in, said once more and plainly. */
function mayPull(site: Generated, asking: Asking): boolean {
  const liesIn = (networks: readonly string[]): boolean =>
    asking.network !== 'elsewhere' && networks.includes(NETWORKS[asking.network])
  const user =
    site.hasPasswords && asking.login?.isRight === true && asking.login.user !== 'eve' ? asking.login.user : undefined
  const names = site.hasCertificates && asking.certificate?.isValid === true ? asking.certificate.names : []
  const shown: boolean[] = []
  if (site.hasPasswords) shown.push(user !== undefined)
  if (site.hasCertificates) shown.push(names.length > 0)
  if (site.networks !== undefined) shown.push(liesIn(site.networks))
  const isIn = shown.length === 0 || (site.require === 'all' ? shown.every(Boolean) : shown.some(Boolean))
  const { users, certificates, networks } = site.clients ?? {}
  const isNamed =
    (users === undefined && certificates === undefined) ||
    (user !== undefined && users?.some((each) => each === user) === true) ||
    names.some((name) => certificates?.includes(name) === true)
  const isNear = networks === undefined || liesIn(networks)
  const covers = (globs: readonly (readonly [string, readonly string[]])[]): boolean =>
    globs.some(([, covered]) => covered.includes(asking.repository))
  return isIn && isNamed && isNear && covers(site.allow) && !covers(site.deny)
}

test('10,000 random configurations decide as the model says', async (t) => {
  const seed = Number(process.env['SEED'] ?? 20_261_124)
  let granted = 0
  let refused = 0
  const property = fc.asyncProperty(
    situations,
    fc.array(callers, { minLength: 1, maxLength: 8 }),
    async (site, all) => {
      const door = doorFor({ ...site, allow: site.allow.map(([glob]) => glob), deny: site.deny.map(([glob]) => glob) })
      for (const asking of all) {
        const { login, certificate } = asking
        const isKnown = login?.isRight === true && login.user !== 'eve'
        const who = caller({
          address: ADDRESSES[asking.network],
          authorization: login === undefined ? undefined : `${login.user} ${isKnown ? 'right' : 'wrong'}`,
          certificate:
            certificate?.isValid === true
              ? { isValid: true, names: certificate.names }
              : certificate && { isValid: false, reason: 'SELF_SIGNED_CERT_IN_CHAIN' },
        })
        const outcome = await outcomeOf(door, who, asking.repository)
        assert.equal(outcome === 'in', mayPull(site, asking), String(outcome))
        if (outcome === 'in') granted++
        else {
          refused++
          assert.ok(['UNAUTHENTICATED', 'CLIENT_DENIED', 'DENIED_BY_RULE'].includes(outcome.code))
          // A challenge where there is no password to give would send a client in circles.
          if (outcome.code === 'UNAUTHENTICATED') assert.ok(site.hasPasswords)
        }
      }
    },
  )
  await fc.assert(property, { seed, numRuns: 10_000 })
  t.diagnostic(`seed ${seed}: 10000 configurations, ${granted} pulls granted, ${refused} refused, as the model says`)
  assert.ok(granted > 1000 && refused > 1000)
})
