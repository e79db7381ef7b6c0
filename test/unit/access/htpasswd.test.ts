import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseHtpasswd } from '../../../src/access/htpasswd.ts'

const REST = 'abcdefghijklmnopqrstuu./ABCDEFGHIJKLMNOPQRSTUVWXYZ0123'
const HASH = `$2y$10$${REST.slice(0, 53)}`

test('users are read, comments and blank lines skipped, every bcrypt spelling taken', () => {
  const kinds = ['2a', '2b', '2y'].map((kind) => HASH.replace('2y', kind))
  const text = `# people\r\n\r\nann:${kinds[0]}\r\nb b:${kinds[1]}\n  \nc@x:${kinds[2]}  \n`
  const { users, problems } = parseHtpasswd(text)
  assert.deepEqual(problems, [])
  assert.deepEqual(
    [...users],
    [
      ['ann', kinds[0]],
      ['b b', kinds[1]],
      ['c@x', kinds[2]],
    ],
  )
})

test('every line that cannot be used is told with its number, and no hash is repeated', () => {
  const rows: readonly (readonly [string, RegExp])[] = [
    ['nonsense', /no line of the form user:hash/],
    [`:${HASH}`, /no line of the form user:hash/],
    ['ann:canaryplain', /not of bcrypt/],
    ['ann:$apr1$canary$canary', /not of bcrypt/],
    ['ann:{SHA}canary', /not of bcrypt/],
    [`ann:${HASH.replace('2y', '2x')}`, /not of bcrypt/],
    [`ann:${HASH}x`, /not of bcrypt/],
    [`ann:${HASH.replace('$10$', '$15$')}`, /cost 15 is outside 4 to 14/],
    [`ann:${HASH.replace('$10$', '$03$')}`, /cost 3 is outside/],
    [`a\u0000n:${HASH}`, /control character/],
  ]
  for (const [line, expected] of rows) {
    const { users, problems } = parseHtpasswd(`bob:${HASH}\n${line}\nbob:${HASH}\n`)
    assert.equal(users.size, 1, line)
    assert.deepEqual(
      problems.map((problem) => problem.line),
      [2, 3],
      line,
    )
    assert.match(problems[0]?.message ?? '', expected)
    assert.match(problems[1]?.message ?? '', /user bob is given twice/)
    assert.doesNotMatch(JSON.stringify(problems), /canary|abcdefgh/)
  }
})

test('a file without users is a problem: nobody could log in', () => {
  for (const text of ['', '\n\n', '# nobody'])
    assert.match(parseHtpasswd(text).problems[0]?.message ?? '', /names no user/)
})
