import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { codeOf } from '../../../src/errors.ts'
import { CredentialBook } from '../../../src/upstream/credentials.ts'
import { askHelper } from '../../../src/upstream/helper.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { temporaryFolder, type TemporaryFolder } from '../../support/temporary-folder.ts'
import { repositoryOf, secret, signal } from './opened.ts'

const scripts: Readonly<Record<string, string>> = {
  good: 'read server; printf \'{"ServerURL":"%s","Username":"AWS","Secret":"pw-%s"}\' "$server" "$server"',
  token: 'printf \'{"Username":"<token>","Secret":"identity"}\'',
  missing: 'echo "credentials not found in native keychain"; exit 1',
  broken: 'echo "secret-canary" >&2; echo "secret-canary"; exit 3',
  garbage: 'echo "secret-canary is not JSON"',
  empty: 'printf \'{"Username":"","Secret":""}\'',
  slow: 'exec sleep 30',
  endless: 'while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done',
  deaf: 'exec <&-; sleep 0.05; printf \'{"Username":"u","Secret":"p"}\'',
}

describe('credential helpers', () => {
  let folder: TemporaryFolder
  const path = process.env['PATH'] ?? ''

  before(async () => {
    folder = await temporaryFolder()
    for (const [name, script] of Object.entries(scripts)) {
      const file = join(folder.path, `docker-credential-${name}`)
      await writeFile(file, `#!/bin/sh\n${script}\n`)
      await chmod(file, 0o755)
    }
    await writeFile(join(folder.path, 'docker-credential-locked'), '')
    process.env['PATH'] = `${folder.path}${delimiter}${path}`
  })
  after(async () => {
    process.env['PATH'] = path
    await folder[Symbol.asyncDispose]()
  })

  const ask = (helper: string, timeoutMs = 5_000): ReturnType<typeof askHelper> =>
    askHelper({ helper, server: 'registry.example', signal, timeoutMs })

  it('are asked by name, with the server on their input', async () => {
    const expected = { username: 'AWS', password: 'pw-registry.example' }
    assert.deepEqual(await ask('good'), expected)
    assert.deepEqual(await ask('docker-credential-good'), expected)
    assert.deepEqual(await ask('deaf'), { username: 'u', password: 'p' })
  })

  it('say "not found" on stdout with exit 1, which is no error', async () => {
    assert.equal(await ask('missing'), undefined)
  })

  it('whatever else they do is an error that repeats nothing they printed', async () => {
    const rows: readonly (readonly [helper: string, said: RegExp])[] = [
      ['broken', /exit status 3/],
      ['garbage', /no Username and Secret/],
      ['empty', /no Username and Secret/],
      ['endless', /more than 65536 bytes/],
      ['nowhere', /no such program/],
      ['locked', /may not be executed|no such program/],
    ]
    for (const [helper, said] of rows) {
      await assert.rejects(ask(helper), (error: unknown) => {
        assert.equal(codeOf(error), 'CREDENTIALS_REJECTED')
        assert.match(String(error), said)
        assert.ok(!String(error).includes('canary'))
        return true
      })
    }
  })

  it('are killed after their time', { timeout: 20_000 }, async () => {
    await assert.rejects(ask('slow', 100), /no answer within 100 ms/)
  })

  it('a name that is a path or a command is never run', async () => {
    for (const helper of ['../evil', '/bin/sh', 'x;id', 'x y', '', '-x', 'docker-credential-', 'a/b', '$(id)']) {
      await assert.rejects(ask(helper), (error: unknown) => codeOf(error) === 'CONFIG_INVALID', helper)
    }
  })

  it('feed the credential book, asked once for many and again only later', async () => {
    const clock = new ManualClock()
    const rules = [
      { source: { helper: 'good' } },
      { source: { helper: 'token', server: 'other' }, repositories: ['team/**'] },
    ]
    const book = new CredentialBook({ rules, server: 'registry.example', clock })
    const found = await Promise.all(Array.from({ length: 20 }, () => book.find(repositoryOf('acme/app'), signal)))
    assert.equal(new Set(found.map((each) => each?.id)).size, 1)
    assert.equal(found[0]?.label, 'auth[0] AWS')
    const token = await book.find(repositoryOf('team/a/b'), signal)
    assert.equal(token?.isIdentityToken, true)
    assert.notEqual(token?.id, found[0]?.id)
  })
})

describe('credential book', () => {
  const find = async (book: CredentialBook, repository: string): Promise<string | undefined> =>
    (await book.find(repositoryOf(repository), signal))?.username

  it('the longest literal start wins, then the longer pattern; * stops at a slash', async () => {
    const rules = [
      { source: secret('all', 'p') },
      { source: secret('org', 'p'), repositories: ['acme/**'] },
      { source: secret('one', 'p'), repositories: ['acme/*'] },
      { source: secret('app', 'p'), repositories: ['acme/app', 'other/app'] },
      { source: secret('team', 'p'), repositories: ['acme/team/*'] },
    ]
    const book = new CredentialBook({ rules, server: 's', clock: new ManualClock() })
    const rows = {
      'library/alpine': 'all',
      'acme/x': 'org',
      'acme/app': 'app',
      'other/app': 'app',
      'acme/team/x': 'team',
      'acme/team/x/y': 'org',
    }
    for (const [repository, expected] of Object.entries(rows))
      assert.equal(await find(book, repository), expected, repository)
  })

  it('no rule, and a source that has nothing, are no credential', async () => {
    const clock = new ManualClock()
    const rules = [{ source: { read: () => Promise.resolve(undefined) }, repositories: ['acme/**'] }]
    const book = new CredentialBook({ rules, server: 's', clock })
    assert.equal(await find(book, 'acme/app'), undefined)
    assert.equal(await find(book, 'other/app'), undefined)
  })

  it('every secret is told before it is used, also a rotated one, and as Basic writes it', async () => {
    const clock = new ManualClock()
    let password = 'canary-one'
    const told: string[] = []
    const rules = [{ source: { read: () => Promise.resolve({ username: 'u', password }) } }]
    const book = new CredentialBook({ rules, server: 's', clock, onSecret: (secret) => told.push(secret) })
    const basic = (): string => Buffer.from(`u:${password}`).toString('base64')
    await find(book, 'acme/app')
    assert.deepEqual(told, [password, basic()])
    password = 'canary-two'
    clock.advance(31_000)
    await find(book, 'acme/app')
    assert.deepEqual(told.slice(2), [password, basic()])
  })

  it('an identity lasts as long as its secret', async () => {
    const clock = new ManualClock()
    let password = 'one'
    const rules = [{ source: { read: () => Promise.resolve({ username: 'u', password }) } }]
    const book = new CredentialBook({ rules, server: 's', clock })
    const id = async (): Promise<string | undefined> => (await book.find(repositoryOf('a'), signal))?.id
    const first = await id()
    clock.advance(31_000)
    assert.equal(await id(), first)
    password = 'two'
    assert.equal(await id(), first)
    clock.advance(31_000)
    assert.notEqual(await id(), first)
    password = 'three'
    book.expire()
    assert.notEqual(await id(), first)
  })
})
