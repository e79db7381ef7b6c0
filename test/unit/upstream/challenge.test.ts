import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseChallenges } from '../../../src/upstream/challenge.ts'

type Expected = readonly (readonly [scheme: string, params: Readonly<Record<string, string>>])[]

const hub = {
  realm: 'https://auth.docker.io/token',
  service: 'registry.docker.io',
  scope: 'repository:library/alpine:pull',
}

const rows: readonly (readonly [name: string, headers: readonly string[], expected: Expected])[] = [
  ['Docker Hub', [`Bearer realm="${hub.realm}",service="${hub.service}",scope="${hub.scope}"`], [['bearer', hub]]],
  [
    'a comma inside quotes',
    ['Bearer realm="r",scope="repository:a:pull,push"'],
    [['bearer', { realm: 'r', scope: 'repository:a:pull,push' }]],
  ],
  [
    'spaces after commas',
    ['Bearer realm="r", service="s" ,  scope="c"'],
    [['bearer', { realm: 'r', service: 's', scope: 'c' }]],
  ],
  [
    'parameters in another order',
    ['Bearer scope="c",service="s",realm="r"'],
    [['bearer', { scope: 'c', service: 's', realm: 'r' }]],
  ],
  ['upper-case scheme and names', ['BEARER Realm="r",SERVICE="s"'], [['bearer', { realm: 'r', service: 's' }]]],
  [
    'a realm alone',
    ['Bearer realm="https://gitlab.com/jwt/auth"'],
    [['bearer', { realm: 'https://gitlab.com/jwt/auth' }]],
  ],
  ['no realm', ['Bearer service="s"'], [['bearer', { service: 's' }]]],
  [
    'unquoted values',
    ['Bearer realm=https://r.example/token,service=s'],
    [['bearer', { realm: 'https://r.example/token', service: 's' }]],
  ],
  [
    'a realm with a query',
    ['Bearer realm="https://r.example/t?a=b&c=d"'],
    [['bearer', { realm: 'https://r.example/t?a=b&c=d' }]],
  ],
  [
    'an equals sign inside quotes',
    ['Bearer realm="https://r.example/t?scope=x=="'],
    [['bearer', { realm: 'https://r.example/t?scope=x==' }]],
  ],
  ['an escaped quote', ['Basic realm="a \\"b\\" c"'], [['basic', { realm: 'a "b" c' }]]],
  ['an escaped backslash', ['Basic realm="a\\\\b"'], [['basic', { realm: 'a\\b' }]]],
  ['an empty quoted value', ['Bearer realm="",service="s"'], [['bearer', { realm: '', service: 's' }]]],
  [
    'two headers',
    ['Bearer realm="r"', 'Basic realm="b"'],
    [
      ['bearer', { realm: 'r' }],
      ['basic', { realm: 'b' }],
    ],
  ],
  [
    'two challenges in one header',
    ['Bearer realm="r",service="s", Basic realm="b"'],
    [
      ['bearer', { realm: 'r', service: 's' }],
      ['basic', { realm: 'b' }],
    ],
  ],
  [
    'Basic before Bearer',
    ['Basic realm="b", Bearer realm="r"'],
    [
      ['basic', { realm: 'b' }],
      ['bearer', { realm: 'r' }],
    ],
  ],
  ['a scheme alone', ['Basic'], [['basic', {}]]],
  [
    'two schemes alone',
    ['Basic, Bearer'],
    [
      ['basic', {}],
      ['bearer', {}],
    ],
  ],
  ['a foreign scheme first', ['Negotiate, Basic realm="b"'], [['basic', { realm: 'b' }]]],
  ['a foreign scheme with token68', ['Negotiate YIIabc/+==, Bearer realm="r"'], [['bearer', { realm: 'r' }]]],
  ['NTLM then Basic', ['NTLM TlRMTVNTUAAB', 'Basic realm="b"'], [['basic', { realm: 'b' }]]],
  [
    'Digest with many parameters',
    ['Digest realm="d", qop="auth,auth-int", nonce="n", Basic realm="b"'],
    [['basic', { realm: 'b' }]],
  ],
  ['spaces around the equals sign', ['Bearer realm = "r" , service= "s"'], [['bearer', { realm: 'r', service: 's' }]]],
  ['tabs', ['Bearer\trealm="r",\tservice="s"'], [['bearer', { realm: 'r', service: 's' }]]],
  ['empty list members', [', ,Bearer realm="r",,service="s",'], [['bearer', { realm: 'r', service: 's' }]]],
  [
    'several scopes',
    ['Bearer realm="r",scope="repository:a:pull repository:b:pull"'],
    [['bearer', { realm: 'r', scope: 'repository:a:pull repository:b:pull' }]],
  ],
  [
    'an error parameter',
    ['Bearer realm="r",error="invalid_token"'],
    [['bearer', { realm: 'r', error: 'invalid_token' }]],
  ],
  ['a repeated parameter: the first counts', ['Bearer realm="good",realm="evil"'], [['bearer', { realm: 'good' }]]],
  [
    'names of Object.prototype are only names',
    ['Bearer __proto__="x",constructor="y",realm="r"'],
    [['bearer', { ['__proto__']: 'x', constructor: 'y', realm: 'r' }]],
  ],
  ['an unclosed quote takes the rest', ['Bearer realm="r,service="s"'], [['bearer', { realm: 'r,service=' }]]],
  ['a cut value', ['Bearer realm="https://r.example/tok'], [['bearer', { realm: 'https://r.example/tok' }]]],
  ['a backslash at the end', ['Bearer realm="r\\'], [['bearer', { realm: 'r\\' }]]],
  ['no header', [], []],
  ['an empty header', [''], []],
  ['only commas', [', , ,'], []],
  ['only a quote', ['"'], []],
  ['a parameter without a scheme', ['realm="r"'], []],
  ['binary', ['\u0000\u0001\u00ff'], []],
  ['an HTML page', ['<html><body>Please log in</body></html>'], []],
  ['JSON', ['{"realm":"r"}'], []],
  ['a header of more than 16 KiB', [`Bearer realm="${'a'.repeat(17_000)}"`], []],
  ['garbage in one header spares the next', ['"""', 'Basic realm="b"'], [['basic', { realm: 'b' }]]],
]

describe('challenges of a 401', () => {
  for (const [name, headers, expected] of rows) {
    it(name, () => {
      const found = parseChallenges(headers).map(({ scheme, params }) => [scheme, [...params]])
      assert.deepEqual(
        found,
        expected.map(([scheme, params]) => [scheme, Object.entries(params)]),
      )
    })
  }

  it('a hundred challenges are cut to sixteen', () => {
    assert.equal(parseChallenges(Array.from({ length: 100 }, () => 'Basic realm="b"')).length, 16)
  })

  it('any text is survived, in a time that does not explode', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.string({ unit: fc.constantFrom('Bearer', ' ', '=', '"', '\\', ',', '\t', 'a', '/', '<'), maxLength: 300 }),
          { maxLength: 3 },
        ),
        (headers) => {
          for (const { params } of parseChallenges(headers)) assert.ok(params instanceof Map)
        },
      ),
    )
    // Quadratic work on these would take minutes.
    for (const text of [
      'a '.repeat(500_000),
      'a='.repeat(500_000),
      'Bearer ' + 'a'.repeat(1_000_000),
      '\\"'.repeat(500_000),
      ' '.repeat(1_000_000),
    ]) {
      parseChallenges([text])
    }
  })

  it('a quoted value comes back whatever it holds', () => {
    fc.assert(
      fc.property(fc.string(), (value) => {
        const quoted = value.replaceAll(/["\\]/g, '\\$&')
        assert.equal(parseChallenges([`Bearer x="${quoted}",realm="r"`])[0]?.params.get('realm'), 'r')
        assert.equal(parseChallenges([`Bearer realm="${quoted}"`])[0]?.params.get('realm'), value)
      }),
    )
  })
})
