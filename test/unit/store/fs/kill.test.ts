/** SIGKILL at any moment: what stands afterwards is whole, and a fill goes on from what was saved. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { digestOf, parseDigest } from '../../../../src/oci/digest.ts'
import { DataFolder } from '../../../../src/store/fs/data-folder.ts'
import { readBlob } from '../../../conformance/store.ts'
import { temporaryFolder } from '../../../support/temporary-folder.ts'

const BODY_BYTES = 24 * 1024 * 1024
const NAMESPACE = { name: 'docker.io', origin: 'registry-1.docker.io' }
const source = (path: string): string => JSON.stringify(new URL(`../../../../src/${path}`, import.meta.url).href)

/** Any slice of an endless body, the same in every process. */
function bodySlice(at: number, length: number): Buffer {
  const words = new Uint32Array(length / 4)
  for (let index = 0; index < words.length; index++) words[index] = Math.imul(at / 4 + index, 2_654_435_761)
  return Buffer.from(words.buffer)
}

/** Runs `body` in a process of its own, with `data` and `store` open; gives the lines it prints. */
function runChild(path: string, body: string): { kill(): Promise<void>; lines: AsyncIterator<string> } {
  const program = `
    const { DataFolder } = await import(${source('store/fs/data-folder.ts')})
    const { digestOf } = await import(${source('oci/digest.ts')})
    const { parseRepository } = await import(${source('oci/repository.ts')})
    const { parseTag } = await import(${source('oci/reference.ts')})
    const data = await DataFolder.open({ path: ${JSON.stringify(path)} })
    const store = await data.openNamespace(${JSON.stringify(NAMESPACE)})
    ${bodySlice.toString().replace(/: (number|Buffer)/g, '')}
    console.log('ready')
    ${body}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  return {
    lines: createInterface(child.stdout)[Symbol.asyncIterator](),
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

describe('fs store: SIGKILL', () => {
  it('in the middle of a fill: the next run goes on from the saved map, and the blob is right', async () => {
    await using folder = await temporaryFolder()
    const hash = createHash('sha256')
    const step = 256 * 1024
    for (let at = 0; at < BODY_BYTES; at += step) hash.update(bodySlice(at, step))
    const hex = hash.digest('hex')
    const child = runChild(
      folder.path,
      `const incoming = await store.openIncoming('sha256:${hex}')
       for (let at = 0; at < ${BODY_BYTES / 2}; at += ${step}) {
         await incoming.write([bodySlice(at, ${step})], at)
         incoming.advance(at)
         await new Promise((resolve) => setTimeout(resolve, 5))
       }
       await incoming.write([bodySlice(${BODY_BYTES - step}, ${step})], ${BODY_BYTES - step})
       await new Promise((resolve) => setTimeout(resolve, 400))
       console.log('written')
       setInterval(() => undefined, 1_000)`,
    )
    await child.lines.next()
    assert.equal((await child.lines.next()).value, 'written')
    await child.kill()

    await using data = await DataFolder.open({ path: folder.path })
    const store = await data.openNamespace(NAMESPACE)
    const parsed = parseDigest(`sha256:${hex}`)
    assert.ok(parsed !== undefined)
    const incoming = await store.openIncoming(parsed)
    const heldBefore = incoming.held.bytes
    assert.ok(heldBefore >= BODY_BYTES / 2 - 2 * 1024 * 1024, `only ${heldBefore} bytes were kept`)
    for (
      let gap = incoming.held.firstGap(0, BODY_BYTES);
      gap !== undefined;
      gap = incoming.held.firstGap(0, BODY_BYTES)
    ) {
      const length = Math.min(step, gap.to - gap.from)
      await incoming.write([bodySlice(gap.from, length)], gap.from)
    }
    assert.equal(await incoming.computeDigest(BODY_BYTES), parsed)
    await incoming.commit(BODY_BYTES)
    await incoming.close()
    assert.equal((await readBlob(store, parsed))?.byteLength, BODY_BYTES)
  })

  it('at random moments of pulls: every blob hashes to its name, every link has its blob, no litter stays', async () => {
    await using folder = await temporaryFolder()
    await mkdir(join(folder.path, NAMESPACE.name))
    const root = join(folder.path, NAMESPACE.name)
    let blobs = 0
    for (let round = 0; round < 4; round++) {
      const child = runChild(
        folder.path,
        `for (let n = 0; ; n++) {
           const repository = parseRepository('acme/app' + (n % 3))
           const bytes = bodySlice(${round} * 4_000_000 + n * 40_000, 4 + 4 * (n * 977 % 9_000))
           const incoming = await store.openIncoming(digestOf(bytes))
           await incoming.write([bytes], 0)
           await incoming.commit(bytes.byteLength)
           await incoming.close()
           await store.writeLink(repository, 'blob', digestOf(bytes))
           const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, layers: [], n, round: ${round} }))
           const digest = digestOf(manifest)
           await store.writeManifest(repository, { digest, bytes: manifest, mediaType: 'application/vnd.acme.odd+json' })
           await store.writeTag(repository, parseTag('latest'), digest)
           if (n === 0) console.log('stored')
         }`,
      )
      await child.lines.next()
      if (round > 0) await child.lines.next()
      await sleep(randomInt(10, 120))
      await child.kill()
      {
        await using data = await DataFolder.open({ path: folder.path })
        await data.openNamespace(NAMESPACE)
      }
      blobs = await checkInvariants(root)
    }
    assert.ok(blobs > 0)
  })
})

/** Checks every file in the namespace; gives the number of blobs. */
async function checkInvariants(root: string): Promise<number> {
  const blobs = new Set<string>()
  const links: string[] = []
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  for (const entry of entries.filter((found) => found.isFile())) {
    const path = join(entry.parentPath, entry.name)
    if (entry.name === 'data') {
      const hex = basename(dirname(path))
      assert.equal(digestOf(await readFile(path)), `sha256:${hex}`)
      blobs.add(`sha256:${hex}`)
    } else if (entry.name === 'link') links.push(path)
    else assert.ok(['origin.json', 'mediatype'].includes(entry.name), `${path} is litter`)
  }
  for (const path of links) {
    const digest = await readFile(path, 'latin1')
    assert.ok(blobs.has(digest), `${path} leads to ${digest}, which is not there`)
  }
  return blobs.size
}
