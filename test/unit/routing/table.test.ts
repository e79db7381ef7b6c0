import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GatewayError } from '../../../src/errors.ts'
import { comparePatterns, matchesPattern, parseHostPattern } from '../../../src/routing/pattern.ts'
import { RouteTable, type RouteEntry } from '../../../src/routing/table.ts'

function problemsOf(...entries: RouteEntry[]): string[] {
  try {
    RouteTable.from(entries)
    return []
  } catch (error) {
    assert.ok(error instanceof GatewayError)
    assert.equal(error.code, 'CONFIG_INVALID')
    return error.message.split('\n')
  }
}

const A: RouteEntry = { upstream: 'a.example', place: 'a.yaml:1:7' }
const B: RouteEntry = { upstream: 'b.example', place: 'b.yaml:3:9' }

const overlaps: readonly (readonly [string, RouteEntry, RouteEntry])[] = [
  ['the same name twice', A, { ...A, place: 'b.yaml:3:9' }],
  ['a name that differs in case only', A, { ...B, upstream: 'A.Example' }],
  ['a name that differs in :443 only', A, { ...B, upstream: 'a.example:443' }],
  ['an alias that is a name', A, { ...B, aliases: ['a.example'] }],
  ['one alias for two', { ...A, aliases: ['x.example'] }, { ...B, aliases: ['x.example'] }],
  ['one host for two', { ...A, hosts: ['gw.example'] }, { ...B, hosts: ['gw.example'] }],
  ['one host in two spellings', { ...A, hosts: ['gw.example'] }, { ...B, hosts: ['GW.example.'] }],
  ['a host that is a name', A, { ...B, hosts: ['a.example'] }],
  ['one port for two', { ...A, port: 5001 }, { ...B, port: 5001 }],
  ['one prefix for two', { ...A, prefix: 'hub' }, { ...B, prefix: 'hub' }],
  ['a prefix that is a name', A, { ...B, prefix: 'a.example' }],
  ['a prefix within a prefix', { ...A, prefix: 'mirror' }, { ...B, prefix: 'mirror/b' }],
  ['one pattern twice', { ...A, upstream: '*.a.example' }, { ...B, upstream: '*.a.example' }],
  ['patterns that cross', { ...A, upstream: 'x*.a.example' }, { ...B, upstream: '*y.a.example' }],
]

for (const [what, first, second] of overlaps) {
  test(`${what} is refused, naming both places`, () => {
    const problems = problemsOf(first, second)
    assert.equal(problems.length > 0, true)
    assert.match(problems[0] ?? '', /a\.yaml:1:7/)
    assert.match(problems[0] ?? '', /b\.yaml:3:9/)
  })
}

test('all overlaps are told at once', () => {
  assert.equal(problemsOf({ ...A, port: 1, hosts: ['h.example'] }, { ...B, port: 1, hosts: ['h.example'] }).length, 2)
})

const unusable: readonly (readonly [string, RouteEntry])[] = [
  ['a name with a path', { ...A, upstream: 'a.example/v2' }],
  ['an alias with a scheme', { ...A, aliases: ['https://a.example'] }],
  ['a host with a path', { ...A, hosts: ['gw.example/x'] }],
  ['a prefix that is no repository name', { ...A, prefix: 'Hub' }],
  ['a prefix that hides the API', { ...A, prefix: 'v2' }],
  ['a prefix with too many components', { ...A, prefix: 'a/b/c/d/e' }],
  ['a pattern with a port', { ...A, upstream: '*.a.example', port: 5001 }],
  ['a pattern with hosts', { ...A, upstream: '*.a.example', hosts: ['gw.example'] }],
  ['a pattern with a prefix', { ...A, upstream: '*.a.example', prefix: 'x' }],
  ['a pattern with aliases', { ...A, upstream: '*.a.example', aliases: ['x.example'] }],
  ['a pattern with two stars in a label', { ...A, upstream: '*x*.a.example' }],
]

for (const [what, entry] of unusable) {
  test(`${what} is refused, naming its place`, () => assert.match(problemsOf(entry)[0] ?? '', /^a\.yaml:1:7: /))
}

test('entries that only look alike stand beside each other', () => {
  const fine: RouteEntry[] = [
    { ...A, port: 5001, hosts: ['a.gw.example'], aliases: ['a.example', 'old.example'], prefix: 'a.example' },
    { ...B, port: 5002, hosts: ['b.gw.example', 'b.example'], prefix: 'b' },
    { upstream: '*.pkg.dev', place: 'c.yaml:1:1', prefix: '*.pkg.dev' },
    { upstream: 'europe-*.pkg.dev', place: 'd.yaml:1:1' },
    { upstream: '*', place: 'e.yaml:1:1' },
    { upstream: 'registry-1.docker.io', place: 'f.yaml:1:1' },
    { upstream: 'docker.io', place: 'g.yaml:1:1' },
  ]
  assert.deepEqual(problemsOf(...fine), [])
  const table = RouteTable.from(fine)
  assert.equal(table.byName({ name: 'registry-1.docker.io', port: undefined })?.upstream, 'registry-1.docker.io')
  assert.equal(table.byPattern('europe-west1.pkg.dev')?.pattern, 'europe-*.pkg.dev')
  assert.equal(table.byPattern('us.pkg.dev')?.pattern, '*.pkg.dev')
  assert.equal(table.byPattern('x.example.com')?.pattern, '*')
  assert.equal(table.has('docker.io'), true)
  assert.equal(table.has('old.example'), false)
})

test('a star in a pattern stands for one label or a part of one', () => {
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['*.pkg.dev', 'a.pkg.dev', true],
    ['*.pkg.dev', 'a.b.pkg.dev', false],
    ['*.pkg.dev', '.pkg.dev', false],
    ['*-docker.pkg.dev', 'eu-docker.pkg.dev', true],
    ['*-docker.pkg.dev', '-docker.pkg.dev', false],
    ['*.azurecr.io', 'azurecr.io', false],
    ['*.corp.local', 'reg.corp.local', true],
    ['*', 'reg.corp.local', false],
    ['*', 'reg.example.com', true],
    ['*', 'example', false],
    ['*', '8.8.8.8', false],
    ['*', `${'a'.repeat(64)}.example.com`, false],
    ['*', 'a_b.example.com', false],
  ]
  for (const [pattern, host, expected] of rows) {
    const parsed = parseHostPattern(pattern)
    assert.ok(parsed)
    assert.equal(matchesPattern(parsed, host), expected, `${pattern} ${host}`)
  }
})

test('patterns are compared by what they cover', () => {
  const rows = [
    ['*.a.io', '*.a.io', 'equal'],
    ['x*.a.io', '*.a.io', 'narrower'],
    ['*.a.io', 'x*.a.io', 'wider'],
    ['*.a.io', '*', 'narrower'],
    ['*', '*.a.io', 'wider'],
    ['x*.a.io', '*y.a.io', 'crossing'],
    ['*.a.*.io', '*.*.b.io', 'crossing'],
    ['*.a.io', '*.b.io', 'disjoint'],
    ['*.a.io', '*.a.b.io', 'disjoint'],
  ] as const
  for (const [a, b, expected] of rows) {
    const [left, right] = [parseHostPattern(a), parseHostPattern(b)]
    assert.ok(left && right)
    assert.equal(comparePatterns(left, right), expected, `${a} ${b}`)
  }
})
