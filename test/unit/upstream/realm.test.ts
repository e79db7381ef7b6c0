import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { judgeRealm, registrableDomain } from '../../../src/upstream/realm.ts'

const trusted: readonly (readonly [endpoint: string, realm: string, listed?: readonly string[]])[] = [
  ['https://registry-1.docker.io', 'https://auth.docker.io/token'],
  ['https://registry.gitlab.com', 'https://gitlab.com/jwt/auth'],
  ['https://ghcr.io', 'https://ghcr.io/token'],
  ['https://quay.io', 'https://quay.io/v2/auth'],
  ['https://ghcr.io', 'https://ghcr.io:443/token'],
  ['https://ghcr.io', 'HTTPS://GHCR.IO/token'],
  ['https://registry.corp.example', 'https://auth.corp.example/token'],
  ['https://registry.corp.example', 'https://corp.example/service/token'],
  ['https://registry.corp.co.uk', 'https://login.corp.co.uk/token'],
  ['https://myacct.azurecr.io', 'https://myacct.azurecr.io/oauth2/token'],
  ['https://10.0.0.5:5000', 'https://10.0.0.5:5000/token'],
  ['http://localhost:5000', 'http://localhost:5000/token'],
  ['http://localhost:5000', 'http://localhost:5001/token', ['localhost:5001']],
  ['http://registry:5000', 'https://sso.example/token', ['sso.example']],
  ['https://registry.example', 'https://sso.other.example.net/auth/token', ['https://sso.other.example.net/auth']],
  ['https://registry.example', 'https://sso.other.net:8443/t', ['sso.other.net:8443']],
  ['https://[2001:db8::1]:5000', 'https://[2001:db8::1]:5000/token'],
]

/** All come from a challenge of https://registry.corp.example unless another endpoint is named. */
const hostile: readonly (readonly [name: string, realm: string, endpoint?: string, listed?: readonly string[]])[] = [
  ['another host', 'https://attacker.example.net/token'],
  ['another host with our path', 'https://attacker.test/registry.corp.example/token'],
  ['our name as a prefix', 'https://registry.corp.example.attacker.test/token'],
  ['our name as a suffix of a label', 'https://evilcorp.example/token'],
  ['our domain glued', 'https://xcorp.example.attacker.test/'],
  ['the parent of our domain', 'https://example/token'],
  ['a loopback address', 'https://127.0.0.1/token'],
  ['a metadata address', 'https://169.254.169.254/latest/meta-data'],
  ['a private address', 'https://10.0.0.1/token'],
  ['an IPv6 loopback', 'https://[::1]/token'],
  ['an integer address', 'https://2130706433/token'],
  ['localhost', 'https://localhost/token'],
  ['plain http on our host', 'http://registry.corp.example/token'],
  ['plain http elsewhere', 'http://attacker.test/token'],
  ['user information', 'https://user:pw@registry.corp.example/token'],
  ['user information that looks like our host', 'https://registry.corp.example@attacker.test/token'],
  ['an empty user', 'https://@registry.corp.example/token'],
  ['a backslash', 'https://attacker.test\\@registry.corp.example/token'],
  ['a backslash for a slash', 'https:\\\\attacker.test\\token'],
  ['a relative path', '/token'],
  ['a relative name', 'token'],
  ['a scheme-relative URL', '//attacker.test/token'],
  ['no host', 'https:///token'],
  ['a single slash', 'https:/attacker.test/token'],
  ['empty', ''],
  ['only spaces', '   '],
  ['a space inside', 'https://registry.corp.example /token'],
  ['a tab inside the host', 'https://registry.corp.exam\tple/token'],
  ['a newline', 'https://registry.corp.example/token\r\nX-Evil: 1'],
  ['a NUL', 'https://registry.corp.example\u0000.attacker.test/token'],
  ['a fragment', 'https://registry.corp.example/token#@attacker.test'],
  ['8 KiB', `https://registry.corp.example/${'a'.repeat(8_192)}`],
  ['a file', 'file:///etc/passwd'],
  ['ftp', 'ftp://registry.corp.example/token'],
  ['javascript', 'javascript:alert(1)'],
  ['data', 'data:text/plain,token'],
  ['a homoglyph', 'https://registry.cоrp.example/token'],
  ['a full-width dot', 'https://registry.corp.example。attacker.test/token'],
  ['a percent-encoded dot', 'https://registry%2ecorp.example%2eattacker.test/token'],
  ['a trailing dot', 'https://registry.corp.example./token'],
  ['quotes', 'https://registry.corp.example/"token"'],
  ['a neighbour at a shared suffix', 'https://evil.azurecr.io/oauth2/token', 'https://myacct.azurecr.io'],
  ['a neighbour under a country second level', 'https://evil.co.uk/token', 'https://corp.co.uk'],
  ['a neighbour at AWS', 'https://evil.s3.amazonaws.com/token', 'https://1.dkr.ecr.eu-west-1.amazonaws.com'],
  ['a neighbour at github.io', 'https://evil.github.io/token', 'https://corp.github.io'],
  ['another port of an address', 'https://10.0.0.5:5001/token', 'https://10.0.0.5:5000'],
  ['another address of the same network', 'https://10.0.0.6:5000/token', 'https://10.0.0.5:5000'],
  ['another port of a single label', 'http://registry:5001/token', 'http://registry:5000'],
  ['the known pair the wrong way round', 'https://registry-1.docker.io.attacker.test/token', 'https://auth.docker.io'],
  ['a known pair on another port', 'https://gitlab.com.evil.test:8443/jwt/auth', 'https://registry.gitlab.com'],
  ['the same domain from a plain endpoint', 'https://auth.corp.example/token', 'http://registry.corp.example'],
  [
    'a listed host on another port',
    'https://sso.example.net:8443/t',
    'https://registry.corp.example',
    ['sso.example.net'],
  ],
  ['a listed host by http', 'http://sso.example.net/t', 'https://registry.corp.example', ['sso.example.net']],
  [
    'beside a listed path',
    'https://sso.example.net/authority',
    'https://registry.corp.example',
    ['https://sso.example.net/auth'],
  ],
  [
    'up from a listed path',
    'https://sso.example.net/auth/../evil',
    'https://registry.corp.example',
    ['https://sso.example.net/auth'],
  ],
  ['an entry that is no host', 'https://attacker.test/', 'https://registry.corp.example', ['', 'https://', '*']],
]

describe('realm trust', () => {
  for (const [endpoint, realm, listed = []] of trusted) {
    it(`${endpoint} may name ${realm}`, () => {
      assert.equal(judgeRealm(realm, new URL(endpoint), listed).trusted, true)
    })
  }

  for (const [name, realm, endpoint = 'https://registry.corp.example', listed = []] of hostile) {
    it(`refused: ${name}`, () => {
      const verdict = judgeRealm(realm, new URL(endpoint), listed)
      assert.equal(verdict.trusted, false)
      if (!verdict.trusted) assert.notEqual(verdict.reason, '')
    })
  }

  it('the registrable domain of a name', () => {
    const rows: readonly (readonly [string, string | undefined])[] = [
      ['a.b.example.com', 'example.com'],
      ['example.com', 'example.com'],
      ['corp.co.uk', 'corp.co.uk'],
      ['a.corp.com.au', 'corp.com.au'],
      ['co.uk', undefined],
      ['localhost', undefined],
      ['10.0.0.1', undefined],
      ['[::1]', undefined],
      ['x.github.io', undefined],
      ['github.io', undefined],
    ]
    for (const [host, expected] of rows) assert.equal(registrableDomain(host), expected, host)
  })
})
