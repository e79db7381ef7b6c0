import assert from 'node:assert/strict'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { inspect } from 'node:util'
import { Secret } from '../../../src/config/secret.ts'

describe('a secret', () => {
  const folder = mkdtempSync(join(tmpdir(), 'entrepot-secret-'))
  after(() => rmSync(folder, { recursive: true }))

  it('gives its text only by reveal, whatever prints it', () => {
    const secret = Secret.fromText('hunter2')
    assert.equal(secret.reveal(), 'hunter2')
    const prints = [
      String(secret),
      `${secret.toString()}`,
      JSON.stringify({ secret }),
      inspect({ secret }, { showHidden: true }),
    ]
    for (const printed of prints) {
      assert.match(printed, /\[secret\]/)
      assert.doesNotMatch(printed, /hunter2/)
    }
  })

  it('is read without the line end of its file, and nothing else is cut off', () => {
    const path = join(folder, 'crlf')
    writeFileSync(path, ' a b \r\n')
    assert.equal(Secret.fromFile(path).reveal(), ' a b ')
  })

  it('is read again when its file was written', () => {
    const path = join(folder, 'rotated')
    writeFileSync(path, 'first')
    const secret = Secret.fromFile(path)
    writeFileSync(path, 'second one')
    assert.equal(secret.reveal(), 'second one')
  })

  it('is read again when its file was swapped for one of the same size', () => {
    const path = join(folder, 'swapped')
    writeFileSync(path, 'aaaa')
    const secret = Secret.fromFile(path)
    writeFileSync(`${path}.new`, 'bbbb')
    renameSync(`${path}.new`, path)
    assert.equal(secret.reveal(), 'bbbb')
  })

  it('keeps its last text while the file is missing or empty, and takes the next one', () => {
    const path = join(folder, 'gone')
    writeFileSync(path, 'kept')
    const secret = Secret.fromFile(path)
    rmSync(path)
    assert.equal(secret.reveal(), 'kept')
    writeFileSync(path, '')
    assert.equal(secret.reveal(), 'kept')
    writeFileSync(path, 'next')
    assert.equal(secret.reveal(), 'next')
  })

  it('is refused when its file is missing, empty or far too large', () => {
    const large = join(folder, 'large')
    writeFileSync(large, 'x'.repeat(70_000))
    const empty = join(folder, 'empty')
    writeFileSync(empty, '\n')
    for (const path of [large, empty, join(folder, 'none')]) assert.throws(() => Secret.fromFile(path))
  })
})
