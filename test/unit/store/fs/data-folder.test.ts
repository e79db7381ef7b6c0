import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { GatewayError } from '../../../../src/errors.ts'
import { digestOf } from '../../../../src/oci/digest.ts'
import { DataFolder } from '../../../../src/store/fs/data-folder.ts'
import { checkCaseSensitive } from '../../../../src/store/fs/folder-checks.ts'
import { blobPath } from '../../../../src/store/layout.ts'
import { readBlob, storeBlob } from '../../../conformance/store.ts'
import { temporaryFolder } from '../../../support/temporary-folder.ts'

const run = promisify(execFile)
const moduleUrl = new URL('../../../../src/store/fs/data-folder.ts', import.meta.url).href

async function unusable(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    assert.ok(error instanceof GatewayError, String(error))
    assert.equal(error.code, 'STORE_UNUSABLE')
    return error.message
  }
  return assert.fail('it was opened')
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** Opens the folder in a process of its own, as another user if `uid` is given; resolves to what it printed. */
async function openElsewhere(path: string, uid?: number): Promise<string> {
  const program = `
    import { setTimeout } from 'node:timers/promises'
    const { DataFolder } = await import(${JSON.stringify(moduleUrl)})
    ${uid === undefined ? '' : `process.setgid(${uid}); process.setuid(${uid})`}
    try {
      const folder = await DataFolder.open({ path: ${JSON.stringify(path)} })
      const store = await folder.openNamespace({ name: 'docker.io', origin: 'registry-1.docker.io' })
      await folder.close()
      console.log('opened')
    } catch (error) { console.log(error.code + ' ' + error.message) }`
  return (await run(process.execPath, ['--input-type=module', '-e', program], { timeout: 20_000 })).stdout.trim()
}

describe('data folder', () => {
  it('is created with its parents, holds a lock file, and a namespace only after its first bytes', async () => {
    await using temporary = await temporaryFolder()
    const path = join(temporary.path, 'a/b/data')
    await using data = await DataFolder.open({ path })
    const store = await data.openNamespace({ name: 'docker.io', origin: 'registry-1.docker.io' })
    assert.deepEqual(await readdir(path), ['lock.sqlite'])
    await storeBlob(store, Buffer.from('first'))
    const origin: unknown = JSON.parse(await readFile(join(path, 'docker.io/origin.json'), 'utf8'))
    assert.ok(typeof origin === 'object' && origin !== null && 'registry' in origin && 'createdAt' in origin)
    assert.equal(origin.registry, 'registry-1.docker.io')
    assert.ok(!Number.isNaN(Date.parse(String(origin.createdAt))))
  })

  it('one namespace never sees the bytes of another', async () => {
    await using temporary = await temporaryFolder()
    await using data = await DataFolder.open({ path: temporary.path })
    const hub = await data.openNamespace({ name: 'docker.io', origin: 'registry-1.docker.io' })
    const quay = await data.openNamespace({ name: 'quay.io', origin: 'quay.io' })
    const digest = await storeBlob(hub, Buffer.from('apart'))
    assert.equal(await readBlob(quay, digest), undefined)
    assert.equal(await data.openNamespace({ name: 'docker.io', origin: 'registry-1.docker.io' }), hub)
  })

  it('a second gateway is refused while the first runs, in this process or another, and let in after it', async () => {
    await using temporary = await temporaryFolder()
    const data = await DataFolder.open({ path: temporary.path })
    assert.match(await unusable(DataFolder.open({ path: temporary.path })), /in use by another gateway.*"data:"/)
    assert.match(await openElsewhere(temporary.path), /^STORE_UNUSABLE .*in use by another gateway/)
    await data.close()
    await data.close()
    assert.equal(await openElsewhere(temporary.path), 'opened')
    await (await DataFolder.open({ path: temporary.path })).close()
  })

  it('a configured path that is itself a symbolic link is fine', async () => {
    await using temporary = await temporaryFolder()
    await mkdir(join(temporary.path, 'volume'))
    await symlink(join(temporary.path, 'volume'), join(temporary.path, 'data'))
    await using data = await DataFolder.open({ path: join(temporary.path, 'data') })
    assert.equal(data.path, join(temporary.path, 'volume'))
  })

  it('a symbolic link near the top is refused with what it points at', async () => {
    await using temporary = await temporaryFolder()
    const path = join(temporary.path, 'data')
    for (const place of ['ghcr.io', 'ghcr.io/docker', 'ghcr.io/docker/registry', 'ghcr.io/docker/registry/v2']) {
      await mkdir(join(path, place, '..'), { recursive: true })
      await symlink(temporary.path, join(path, place))
      const message = await unusable(DataFolder.open({ path }))
      assert.ok(message.includes(`${join(path, place)} is a symbolic link to ${temporary.path}`), message)
      await rm(path, { recursive: true })
    }
    await mkdir(path)
    await (await DataFolder.open({ path })).close() // and the lock was let go each time
  })

  it('a file in the place of a folder is told', async () => {
    await using temporary = await temporaryFolder()
    const path = join(temporary.path, 'data')
    await writeFile(path, '')
    const beginning = 'data folder'
    const mend = 'is a file, not a folder; move it away, or set "data:" to another folder'
    assert.equal(await unusable(DataFolder.open({ path })), `${beginning} ${path} cannot be created: ${path} ${mend}`)
    const below = join(path, 'a/b')
    assert.equal(
      await unusable(DataFolder.open({ path: below })),
      `${beginning} ${below} cannot be created: ${path} ${mend}`,
    )
    await rm(path)
    await using data = await DataFolder.open({ path })
    await writeFile(join(path, 'quay.io'), '')
    assert.match(
      await unusable(data.openNamespace({ name: 'quay.io', origin: 'quay.io' })),
      /quay\.io is no folder.*mv /,
    )
  })

  it('a case-insensitive disk is refused', async () => {
    await using temporary = await temporaryFolder()
    const foldingExists = async (path: string): Promise<boolean> =>
      (await readdir(temporary.path)).some((name) => join(temporary.path, name).toLowerCase() === path.toLowerCase())
    assert.match(await unusable(checkCaseSensitive(temporary.path, foldingExists)), /case-insensitive.*"data:"/)
    assert.deepEqual(await readdir(temporary.path), [])
    await checkCaseSensitive(temporary.path)
  })

  it('a namespace name that is no plain folder name is refused', async () => {
    await using temporary = await temporaryFolder()
    await using data = await DataFolder.open({ path: temporary.path })
    for (const name of [
      '',
      '.',
      '..',
      '../x',
      'a/b',
      '.hidden',
      'Docker.io',
      'a\0b',
      'ledger.sqlite',
      'ledger.sqlite-wal',
      '-x',
      'x'.repeat(129),
    ]) {
      assert.match(
        await unusable(data.openNamespace({ name, origin: 'x' })),
        /cannot name a folder/,
        JSON.stringify(name),
      )
    }
  })
})

describe('data folder: permissions', { skip: process.getuid?.() !== 0 && 'needs to become another user' }, () => {
  const nobody = 65_534

  async function readableByAll(path: string): Promise<void> {
    await chmod(path, 0o755)
  }

  it('a folder of another user is told with the chown that mends it', async () => {
    await using temporary = await temporaryFolder()
    await readableByAll(temporary.path)
    const path = join(temporary.path, 'data')
    await mkdir(path)
    assert.equal(
      await openElsewhere(path, nobody),
      `STORE_UNUSABLE ${path} belongs to user 0 and this gateway, user ${nobody}, may not write it (EACCES); give it over: sudo chown -R ${nobody}:${nobody} ${path}`,
    )
  })

  it('an own folder without the right to write is told with the chmod that mends it', async () => {
    await using temporary = await temporaryFolder()
    await readableByAll(temporary.path)
    const path = join(temporary.path, 'data')
    await mkdir(path)
    await chown(path, nobody, nobody)
    await chmod(path, 0o555)
    assert.equal(
      await openElsewhere(path, nobody),
      `STORE_UNUSABLE ${path} is not writable for its owner, user ${nobody} (EACCES); allow it: chmod u+rwx ${path}`,
    )
  })

  it(
    'a folder that a file system denies to be there ends the start, however deep',
    { skip: process.platform !== 'linux' && 'only Linux has /proc', timeout: 10_000 },
    async () => {
      for (const path of ['/proc/entrepot', '/proc/entrepot/a/b']) {
        assert.match(await unusable(DataFolder.open({ path })), /cannot be created \(ENOENT\); set "data:" to/)
      }
    },
  )

  it('folders above it are created too, by two at once', async () => {
    await using temporary = await temporaryFolder()
    const paths = [join(temporary.path, 'a/b/c/one'), join(temporary.path, 'a/b/c/two')]
    const opened = await Promise.all(paths.map((path) => DataFolder.open({ path })))
    for (const data of opened) await data.close()
    assert.deepEqual((await readdir(join(temporary.path, 'a/b/c'))).toSorted(), ['one', 'two'])
  })

  it('a folder that cannot be created is told with the commands that create it', async () => {
    await using temporary = await temporaryFolder()
    await readableByAll(temporary.path)
    const path = join(temporary.path, 'data')
    assert.equal(
      await openElsewhere(path, nobody),
      `STORE_UNUSABLE data folder ${path} cannot be created (EACCES); create it as an administrator: sudo mkdir -p ${path} && sudo chown ${nobody}:${nobody} ${path}`,
    )
  })

  it('an adopted namespace that only its former owner may write is told', async () => {
    await using temporary = await temporaryFolder()
    await readableByAll(temporary.path)
    const path = join(temporary.path, 'data')
    await mkdir(join(path, 'docker.io/docker/registry/v2/blobs'), { recursive: true })
    await chown(path, nobody, nobody)
    assert.match(
      await openElsewhere(path, nobody),
      /^STORE_UNUSABLE .*docker\.io belongs to user 0 .*sudo chown -R 65534:65534 /,
    )
    await chown(join(path, 'docker.io'), nobody, nobody)
    assert.match(await openElsewhere(path, nobody), /^STORE_UNUSABLE .*v2\/blobs belongs to user 0 /)
    await chown(join(path, 'docker.io/docker/registry/v2/blobs'), nobody, nobody)
    assert.equal(await openElsewhere(path, nobody), 'opened')
  })
})

describe('data folder: origin', () => {
  it('a folder somebody put there is adopted for the configured registry, and its bytes are served', async () => {
    await using temporary = await temporaryFolder()
    const bytes = Buffer.from('by a stock registry')
    const path = join(temporary.path, 'docker.io', blobPath(digestOf(bytes)))
    await mkdir(join(path, '..'), { recursive: true })
    await writeFile(path, bytes)
    await writeFile(join(temporary.path, 'docker.io/scheduler-state.json'), '{}')
    await using data = await DataFolder.open({ path: temporary.path })
    const store = await data.openNamespace({ name: 'docker.io', origin: 'registry-1.docker.io' })
    assert.ok(await exists(join(temporary.path, 'docker.io/origin.json')))
    assert.deepEqual(await readBlob(store, digestOf(bytes)), bytes)
    assert.ok(await exists(join(temporary.path, 'docker.io/scheduler-state.json')))
  })

  it("another registry's bytes are refused until the folder is moved or adopted", async () => {
    await using temporary = await temporaryFolder()
    const open = async (origin: string): Promise<void> => {
      await using data = await DataFolder.open({ path: temporary.path })
      await storeBlob(await data.openNamespace({ name: 'acme', origin }), Buffer.from('acme'))
    }
    await open('old.acme.example')
    const root = join(temporary.path, 'acme')
    const message = await unusable(open('new.acme.example:5000'))
    assert.equal(
      message,
      `${root} holds bytes of old.acme.example, but upstream acme is configured for new.acme.example:5000; set its url back to old.acme.example; or start anew and keep the old bytes aside: mv ${root} ${root}.old; or, if new.acme.example:5000 serves the same content, adopt them: rm ${root}/origin.json`,
    )
    await open('old.acme.example')
    await rm(join(root, 'origin.json'))
    await open('new.acme.example:5000')
    assert.match(await unusable(open('old.acme.example')), /holds bytes of new\.acme\.example:5000/)
  })

  it('a running gateway refuses a second origin for an open namespace', async () => {
    await using temporary = await temporaryFolder()
    await using data = await DataFolder.open({ path: temporary.path })
    await data.openNamespace({ name: 'acme', origin: 'a.example' })
    assert.match(await unusable(data.openNamespace({ name: 'acme', origin: 'b.example' })), /holds bytes of a\.example/)
  })

  it('a damaged origin.json is told, not overwritten', async () => {
    await using temporary = await temporaryFolder()
    await mkdir(join(temporary.path, 'acme'))
    await writeFile(join(temporary.path, 'acme/origin.json'), '{"registry":')
    await using data = await DataFolder.open({ path: temporary.path })
    assert.match(
      await unusable(data.openNamespace({ name: 'acme', origin: 'a.example' })),
      /origin\.json is damaged.*rm /,
    )
    assert.equal(await readFile(join(temporary.path, 'acme/origin.json'), 'utf8'), '{"registry":')
  })
})
