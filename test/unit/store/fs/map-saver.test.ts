import assert from 'node:assert/strict'
import { open, readdir, rm, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Intervals } from '../../../../src/async/intervals.ts'
import { digestOf } from '../../../../src/oci/digest.ts'
import { loadBootId } from '../../../../src/store/fs/boot-id.ts'
import { SystemDisk } from '../../../../src/store/fs/disk.ts'
import { loadHeld, MapSaver } from '../../../../src/store/fs/map-saver.ts'
import { temporaryFolder } from '../../../support/temporary-folder.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB
const digest = digestOf(Buffer.from('body'))

/** A disk whose syncs end only when a test says how. */
class SlowDisk extends SystemDisk {
  readonly #synced = Promise.withResolvers<void>()

  override sync(): Promise<void> {
    return this.#synced.promise
  }

  finish(): void {
    this.#synced.resolve()
  }

  fail(): void {
    this.#synced.reject(new Error('EIO'))
  }
}

async function openFixture(bootId: string | undefined = 'boot-1') {
  const folder = await temporaryFolder()
  const disk = new SlowDisk()
  const place = { digest, mapPath: join(folder.path, 'x.map'), notePath: join(folder.path, 'x.note'), bootId }
  const writer = { disk, temporaryFolder: folder.path, createFolder: () => Promise.resolve() }
  const held = new Intervals()
  const file = await open(join(folder.path, 'x'), 'w+')
  return {
    disk,
    place,
    saver: new MapSaver({ ...place, writer, held, syncedBytes: 0 }),
    held,
    file,
    folder: folder.path,
    [Symbol.asyncDispose]: async () => {
      await file.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

async function grow(saver: MapSaver, held: Intervals, file: FileHandle): Promise<void> {
  for (let to = held.bytes + MIB; to <= 16 * MIB; to += MIB) {
    held.add(to - MIB, to)
    saver.onGrown(file)
    await sleep(5)
  }
}

/** What the next run would find, once it is `bytes`; a save takes as long as the machine lets it. */
async function heldOf(place: Parameters<typeof loadHeld>[0], bytes: number): ReturnType<typeof loadHeld> {
  for (let tries = 0; tries < 1_000; tries++) {
    const found = await loadHeld(place, SIZE)
    if (found.held.bytes === bytes) return found
    await sleep(10)
  }
  return assert.fail(`never ${bytes} bytes`)
}

describe('what a killed process leaves of a body', () => {
  it('is all that was written, even while the disk still syncs', async () => {
    await using fixture = await openFixture()
    await grow(fixture.saver, fixture.held, fixture.file)
    const { syncedBytes } = await heldOf(fixture.place, 16 * MIB)
    assert.equal(syncedBytes, 0)
    fixture.disk.finish()
    await fixture.saver.stop()
  })

  it('is what was synced when the machine started anew, or does not tell its starts', async () => {
    await using fixture = await openFixture()
    await grow(fixture.saver, fixture.held, fixture.file)
    for (const bootId of ['boot-2', undefined]) {
      assert.equal((await loadHeld({ ...fixture.place, bootId }, SIZE)).held.bytes, 0)
    }
    fixture.disk.finish()
    await fixture.saver.save(fixture.file)
    for (const bootId of ['boot-1', 'boot-2', undefined]) {
      const { held, syncedBytes } = await loadHeld({ ...fixture.place, bootId }, SIZE)
      assert.equal(held.bytes, 16 * MIB)
      assert.equal(syncedBytes, 16 * MIB)
    }
  })

  it('is nothing when a sync failed: the kernel may have dropped the bytes', async () => {
    await using fixture = await openFixture()
    await grow(fixture.saver, fixture.held, fixture.file)
    await heldOf(fixture.place, 16 * MIB)
    fixture.disk.fail()
    await heldOf(fixture.place, 0)
    fixture.held.add(16 * MIB, 20 * MIB)
    fixture.saver.onGrown(fixture.file)
    await sleep(30)
    assert.equal((await loadHeld(fixture.place, SIZE)).held.bytes, 0)
    await assert.rejects(fixture.saver.save(fixture.file), /earlier sync/)
  })

  it('is nothing when the file is shorter than the note says, or the note is damaged', async () => {
    await using fixture = await openFixture()
    await grow(fixture.saver, fixture.held, fixture.file)
    await heldOf(fixture.place, 16 * MIB)
    assert.equal((await loadHeld(fixture.place, 16 * MIB - 1)).held.bytes, 0)
    await writeFile(fixture.place.notePath, '{"version":1}')
    assert.equal((await loadHeld(fixture.place, SIZE)).held.bytes, 0)
    fixture.disk.finish()
    await fixture.saver.stop()
  })

  it('leaves no file once it is removed, and none without a boot id but the map', async () => {
    await using fixture = await openFixture()
    await grow(fixture.saver, fixture.held, fixture.file)
    fixture.disk.finish()
    await fixture.saver.stop()
    await fixture.saver.remove()
    assert.deepEqual(await readdir(fixture.folder), ['x'])

    await using silent = await openFixture()
    const saver = new MapSaver({
      ...silent.place,
      bootId: undefined,
      writer: { disk: new SystemDisk(), temporaryFolder: silent.folder, createFolder: () => Promise.resolve() },
      held: silent.held,
      syncedBytes: 0,
    })
    await grow(saver, silent.held, silent.file)
    await heldOf({ ...silent.place, bootId: undefined }, 16 * MIB)
    await saver.stop()
    assert.deepEqual((await readdir(silent.folder)).toSorted(), ['x', 'x.map'])
    await rm(silent.place.mapPath)
  })
})

it('the boot id is the same at each call', async () => {
  assert.equal(await loadBootId(), await loadBootId())
})
