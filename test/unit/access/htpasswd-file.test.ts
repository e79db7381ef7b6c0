import assert from 'node:assert/strict'
import { rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { HtpasswdFile } from '../../../src/access/htpasswd-file.ts'
import { codeOf } from '../../../src/errors.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { temporaryFolder } from '../../support/temporary-folder.ts'

const HASH = `$2y$04$${'x'.repeat(53)}`

async function opened(path: string) {
  const clock = new ManualClock()
  const told: (number | string)[] = []
  const note = (what: number | string): number => told.push(what)
  return { clock, told, file: new HtpasswdFile({ path, clock, onReload: note, onProblem: note }) }
}

test('a changed file is taken over within a second, with a new generation', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'htpasswd')
  await writeFile(path, `ann:${HASH}\n`)
  const { file, clock, told } = await opened(path)
  const first = file.current()
  assert.deepEqual([...first.hashes.keys()], ['ann'])
  await writeFile(`${path}.new`, `bob:${HASH}\neve:${HASH}\n`)
  await rename(`${path}.new`, path)
  assert.equal(file.current(), first)
  clock.advance(1000)
  const second = file.current()
  assert.deepEqual([...second.hashes.keys()], ['bob', 'eve'])
  assert.notEqual(second.generation, first.generation)
  assert.deepEqual(told, [2])
})

test('a file swapped behind a symbolic link, as Kubernetes does, is a changed file', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'htpasswd')
  for (const name of ['ann', 'bob']) await writeFile(join(folder.path, name), `${name}:${HASH}\n`)
  await symlink('ann', path)
  const { file, clock } = await opened(path)
  await symlink('bob', `${path}.new`)
  await rename(`${path}.new`, path)
  clock.advance(-5000) // a clock that was set back does not stop the looking
  assert.deepEqual([...file.current().hashes.keys()], ['bob'])
})

test('a bad or missing file changes nothing and is told once', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'htpasswd')
  await writeFile(path, `ann:${HASH}\n`)
  const { file, clock, told } = await opened(path)
  const first = file.current()
  await writeFile(path, `bob:${HASH}\neve:plain-canary\n`)
  for (const _ of [1, 2, 3]) {
    clock.advance(1000)
    assert.equal(file.current(), first)
  }
  await rm(path)
  clock.advance(1000)
  assert.equal(file.current(), first)
  assert.equal(told.length, 2)
  assert.match(String(told[0]), /htpasswd:2: user eve: the hash is not of bcrypt/)
  assert.match(String(told[1]), /reading the htpasswd file .*: ENOENT/)
  assert.doesNotMatch(told.join(), /canary/)
  await writeFile(path, `bob:${HASH}\n`)
  clock.advance(1000)
  assert.deepEqual([...file.current().hashes.keys()], ['bob'])
})

test('a file that cannot be used refuses the start', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'htpasswd')
  await assert.rejects(opened(path), (error) => codeOf(error) === 'CONFIG_INVALID')
  await writeFile(path, '\n')
  await assert.rejects(opened(path), (error) => codeOf(error) === 'CONFIG_INVALID')
})
