import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { formatPlace, sortProblems, Source } from '../../../src/config/source.ts'

const TEXT = `name: ghcr.io
routes: { hosts: [a.example, b.example], port: 5002 }
auth:
  - username: bob
    password: x
url: https://ghcr.io
shared: &anchor { ttl: 1m }
tags: *anchor
`

describe('a source', () => {
  const source = new Source('u.yaml', TEXT)
  const places: [PropertyKey[], string][] = [
    [['name'], '1:1'],
    [['routes', 'port'], '2:42'],
    [['routes', 'hosts', 1], '2:30'],
    [['auth', 0, 'password'], '5:5'],
    [['auth', 7, 'password'], '3:1'],
    [['url', 0, 'url'], '6:1'],
    [['routes', 'prefix'], '2:1'],
    [['missing', 'deep'], '1:1'],
    [[], '1:1'],
  ]
  for (const [path, expected] of places) {
    it(`knows that ${JSON.stringify(path)} stands at ${expected}`, () => {
      assert.equal(formatPlace(source.placeOf(path)), `u.yaml:${expected}`)
    })
  }

  it('looks through an alias to where its keys are written', () => {
    assert.equal(formatPlace(source.placeOf(['tags', 'ttl'])), 'u.yaml:7:19')
  })

  it('names keys as they are written, and the missing last ones too', () => {
    assert.equal(source.problemAt(['auth', 0, 'helper'], '').key, 'auth[0].helper')
    assert.equal(source.problemAt(['url', 0, 'url'], '').key, 'url')
    assert.equal(source.problemAt(['routes', 'prefix'], '').key, 'routes.prefix')
  })

  it('reports a key that is given twice at the second one', () => {
    const twice = ['a: 1\nlog: 2\nlog: 3\n', 'log:\nlog: { level: info }\n', 'a: 1\n"log": 2\n"log": 3\n'].map(
      (text) => {
        const [problem, ...more] = new Source('f', text).problems
        assert.equal(more.length, 0)
        return `${problem?.line} ${problem?.key} ${problem?.message}`
      },
    )
    assert.deepEqual(twice, [
      '3 log is given twice: keep one',
      '1 log is given twice: keep one',
      '3 log is given twice: keep one',
    ])
  })

  it('says at which line the text stops being YAML', () => {
    const broken = new Source('f', 'a: 1\nb: [1, 2\nc: 3\n')
    assert.equal(broken.isBroken, true)
    assert.equal(broken.problems[0]?.line, 3)
  })

  it('refuses aliases that would expand beyond all bounds', () => {
    const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]']
    for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef', 'fg', 'gh'].map((pair) => pair.split(''))) {
      lines.push(`${to}: &${to} [${Array(10).fill(`*${from}`).join(', ')}]`)
    }
    const bomb = new Source('f', lines.join('\n'))
    assert.match(bomb.problems[0]?.message ?? '', /alias/i)
    assert.deepEqual(bomb.raw, {})
  })

  it('takes an empty file for one that says nothing', () => {
    for (const text of ['', '\n# only a comment\n']) assert.deepEqual(new Source('f', text).raw, {})
  })

  it('never throws, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'ab:-[]{}&*#!|>\'" \n\t1'.split('')) }), (text) => {
        const any = new Source('f', text)
        any.placeOf(['a', 0, 'b'])
        return any.problems.every(({ line, column }) => line >= 1 && column >= 1)
      }),
    )
  })

  it('sorts problems by file, line and column', () => {
    const at = (file: string, line: number, column: number) => ({ file, line, column, key: '', message: '' })
    const sorted = sortProblems([at('b', 1, 1), at('a', 10, 1), at('a', 9, 7), at('a', 9, 2)])
    assert.deepEqual(sorted.map(formatPlace), ['a:9:2', 'a:9:7', 'a:10:1', 'b:1:1'])
  })
})
