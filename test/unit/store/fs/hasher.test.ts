import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { execFile } from 'node:child_process'
import { open, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { codeOf } from '../../../../src/errors.ts'
import { digestOf, type DigestAlgorithm } from '../../../../src/oci/digest.ts'
import { Hasher, type HashJob } from '../../../../src/store/fs/hasher.ts'
import { temporaryFolder } from '../../../support/temporary-folder.ts'

async function start(hasher: Hasher, path: string, algorithm: DigestAlgorithm = 'sha256'): Promise<HashJob> {
  return hasher.start({ path, inode: (await stat(path)).ino, algorithm })
}

const isStoreFailed = (error: unknown): boolean => codeOf(error) === 'STORE_FAILED'

describe('hasher', () => {
  it('hashes what the file says, in steps or at once, by either algorithm', async () => {
    await using folder = await temporaryFolder()
    await using hasher = new Hasher()
    const path = join(folder.path, 'body')
    const bytes = randomBytes(3 * 1024 * 1024 + 17)
    await writeFile(path, bytes)
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const stepwise = await start(hasher, path, algorithm)
      for (const front of [1, 1, 100, 50, 2_000_000, bytes.byteLength]) stepwise.advance(front)
      assert.equal(await stepwise.finish(bytes.byteLength), digestOf(bytes, algorithm))
      assert.equal(await (await start(hasher, path, algorithm)).finish(bytes.byteLength), digestOf(bytes, algorithm))
    }
    const prefix = await start(hasher, path)
    assert.equal(await prefix.finish(1_000), digestOf(bytes.subarray(0, 1_000)))
    assert.equal(await (await start(hasher, path)).finish(0), digestOf(Buffer.alloc(0)))
  })

  it('bytes are read only up to the front: what comes later may still be written', async () => {
    await using folder = await temporaryFolder()
    await using hasher = new Hasher()
    const path = join(folder.path, 'growing')
    const bytes = randomBytes(2_000_000)
    await using file = await open(path, 'w+')
    await file.write(bytes, 0, 500_000, 0)
    const job = await start(hasher, path)
    job.advance(500_000)
    await file.write(bytes, 500_000, 1_500_000, 500_000)
    assert.equal(await job.finish(2_000_000), digestOf(bytes))
  })

  it('a large body does not delay a small one, nor the loop', async () => {
    await using folder = await temporaryFolder()
    await using hasher = new Hasher()
    const large = join(folder.path, 'large')
    const small = join(folder.path, 'small')
    const slice = randomBytes(8 * 1024 * 1024)
    const expected = createHash('sha256')
    {
      await using file = await open(large, 'w')
      for (let at = 0; at < 128; at += 8) {
        await file.write(slice)
        expected.update(slice)
      }
    }
    await writeFile(small, 'small')
    await (await start(hasher, small)).finish(5) // the thread is up
    const hashed = (await start(hasher, large)).finish(128 * 1024 * 1024)
    let done = false
    void hashed.then(() => (done = true))
    let smalls = 0
    while (!done && smalls < 1_000) {
      await (await start(hasher, small)).finish(5)
      smalls++
    }
    assert.equal(await hashed, `sha256:${expected.digest('hex')}`)
    assert.ok(smalls >= 3, `only ${smalls} small bodies were hashed beside the large one`)
  })

  it('another file under the name, a short file and a missing one are told', async () => {
    await using folder = await temporaryFolder()
    await using hasher = new Hasher()
    const path = join(folder.path, 'body')
    await writeFile(path, 'first')
    const { ino } = await stat(path)
    await writeFile(`${path}.new`, 'other')
    await rename(`${path}.new`, path)
    await assert.rejects(hasher.start({ path, inode: ino, algorithm: 'sha256' }).finish(5), isStoreFailed)
    await assert.rejects((await start(hasher, path)).finish(6), isStoreFailed)
    const missing = hasher.start({ path: `${path}.gone`, inode: 1, algorithm: 'sha256' })
    await assert.rejects(missing.finish(1), isStoreFailed)
    assert.equal(await (await start(hasher, path)).finish(5), digestOf(Buffer.from('other')))
  })

  it('a job given up rejects; others go on', async () => {
    await using folder = await temporaryFolder()
    await using hasher = new Hasher()
    const path = join(folder.path, 'body')
    await writeFile(path, 'body')
    const job = await start(hasher, path)
    const other = await start(hasher, path)
    const given = assert.rejects(job.finish(4), isStoreFailed)
    job.cancel()
    job.cancel()
    await given
    assert.equal(await other.finish(4), digestOf(Buffer.from('body')))
  })

  it('a crash of the thread rejects its jobs, and the next job starts a new one', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'body')
    await writeFile(path, 'body')
    // Dies on the first job of every thread but the second.
    const script = join(folder.path, 'worker.mjs')
    const real = new URL('../../../../src/store/fs/hash-worker.ts', import.meta.url)
    await writeFile(
      script,
      `import { existsSync, writeFileSync } from 'node:fs'
      const flag = ${JSON.stringify(join(folder.path, 'flag'))}
      if (!existsSync(flag)) { writeFileSync(flag, ''); throw new Error('boom') }
      await import(${JSON.stringify(real.href)})`,
    )
    await using hasher = new Hasher({ script: new URL(`file://${script}`) })
    await assert.rejects(
      (await start(hasher, path)).finish(4),
      (error: Error) => isStoreFailed(error) && /boom/.test(error.message),
    )
    assert.equal(await (await start(hasher, path)).finish(4), digestOf(Buffer.from('body')))
  })

  it('closing rejects what is pending and refuses what comes', async () => {
    await using folder = await temporaryFolder()
    const hasher = new Hasher()
    const path = join(folder.path, 'body')
    await writeFile(path, 'body')
    const pending = assert.rejects((await start(hasher, path)).finish(5_000_000_000), isStoreFailed)
    await hasher.close()
    await pending
    await assert.rejects((await start(hasher, path)).finish(4), isStoreFailed)
  })

  it('a warm thread takes the first job, is started once, and does not keep the process alive', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'body')
    await writeFile(path, 'body')
    const module = new URL('../../../../src/store/fs/hasher.ts', import.meta.url).href
    const program = `
      import { statSync } from 'node:fs'
      const { Hasher } = await import(${JSON.stringify(module)})
      const path = ${JSON.stringify(path)}
      let threads = 0
      process.on('worker', () => threads++)
      const idle = new Hasher()
      idle.warm()
      const hasher = new Hasher()
      hasher.warm()
      hasher.warm()
      console.log(await hasher.start({ path, inode: statSync(path).ino, algorithm: 'sha256' }).finish(4), threads)`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
      timeout: 10_000,
    })
    assert.equal(stdout.trim(), `${digestOf(Buffer.from('body'))} 2`)
  })

  it('an idle thread does not keep the process alive, a pending digest does', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'body')
    await writeFile(path, 'body')
    const module = new URL('../../../../src/store/fs/hasher.ts', import.meta.url).href
    const program = `
      import { statSync } from 'node:fs'
      const { Hasher } = await import(${JSON.stringify(module)})
      const path = ${JSON.stringify(path)}
      const hasher = new Hasher()
      const job = hasher.start({ path, inode: statSync(path).ino, algorithm: 'sha256' })
      console.log(await job.finish(4))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
      timeout: 10_000,
    })
    assert.equal(stdout.trim(), digestOf(Buffer.from('body')))
  })
})
