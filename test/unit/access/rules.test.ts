import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepositoryRules, type RepositoryRulesOptions } from '../../../src/access/rules.ts'
import { parseRepository } from '../../../src/oci/repository.ts'

const rows: readonly (readonly [RepositoryRulesOptions, string, boolean])[] = [
  [{}, 'any/thing/at/all', true],
  [{ allow: ['**'] }, 'a', true],
  [{ allow: [] }, 'a', false],
  [{ allow: ['library/*'] }, 'library/alpine', true],
  [{ allow: ['library/*'] }, 'library/alpine/x', false],
  [{ allow: ['library/*'] }, 'library', false],
  [{ allow: ['library/*'] }, 'xlibrary/alpine', false],
  [{ allow: ['org/**'] }, 'org/a/b/c', true],
  [{ allow: ['org/**'] }, 'org', true],
  [{ allow: ['org/**'] }, 'organisation/a', false],
  [{ allow: ['*'] }, 'a', true],
  [{ allow: ['*'] }, 'a/b', false],
  [{ allow: ['org/app'] }, 'org/app', true],
  [{ allow: ['org/app'] }, 'org/app2', false],
  [{ allow: ['org/a?p'] }, 'org/app', true],
  [{ allow: ['a.b/*'] }, 'axb/c', false],
  [{ deny: ['secret/**'] }, 'secret/x', false],
  [{ deny: ['secret/**'] }, 'secret', false],
  [{ deny: ['secret/**'] }, 'other', true],
  [{ deny: ['**'] }, 'a', false],
  [{ allow: ['org/**'], deny: ['org/private-*'] }, 'org/private-x', false],
  [{ allow: ['org/**'], deny: ['org/private-*'] }, 'org/public', true],
  // nothing but stars is live: neither negation nor alternatives
  [{ allow: ['!org/app'] }, 'other', false],
  [{ deny: ['!org/app'] }, 'other', true],
  [{ allow: ['{a,b}'] }, 'a', false],
  [{ allow: ['+(a)'] }, 'aa', false],
]

for (const [options, name, expected] of rows) {
  test(`${JSON.stringify(options)} ${expected ? 'allows' : 'refuses'} ${name}`, () => {
    const repository = parseRepository(name)
    assert.ok(repository)
    assert.equal(new RepositoryRules(options).allows(repository), expected)
  })
}
