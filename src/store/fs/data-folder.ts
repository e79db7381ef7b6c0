/** The whole data folder: owned by one gateway at a time, checked before use, one `FsStore` per namespace in it. */
import { join } from 'node:path'
import { lstat } from 'node:fs/promises'
import { systemClock, type Clock } from '../../async/clock.ts'
import { GatewayError } from '../../errors.ts'
import { isNamespaceFolder } from '../../oci/namespace.ts'
import { SystemDisk, type Disk } from './disk.ts'
import {
  checkCaseSensitive,
  checkNamespaceFolder,
  checkWritable,
  createDataFolder,
  refuseSymlinks,
} from './folder-checks.ts'
import { lockFolder } from './folder-lock.ts'
import { FsStore } from './fs-store.ts'
import { Hasher } from './hasher.ts'
import { checkOrigin, loadOrigin, writeOrigin } from './origin.ts'
import type { LeftoverBounds } from '../store.ts'

export interface DataFolderOptions {
  /** Created when missing. */
  readonly path: string
  readonly clock?: Clock
  readonly disk?: Disk
  readonly leftovers?: LeftoverBounds
}

export interface NamespaceOptions {
  /** Name of the upstream, which is the folder's name. */
  readonly name: string
  /** Host (and port) of the registry the bytes come from. */
  readonly origin: string
}

export const LOCK_FILE = 'lock.sqlite'

export class DataFolder implements AsyncDisposable {
  /** Absolute, without symbolic links. */
  readonly path: string
  readonly #options: DataFolderOptions
  readonly #lock: Disposable
  readonly #clock: Clock
  readonly #disk: Disk
  readonly #hasher = new Hasher()
  readonly #namespaces = new Map<string, { readonly origin: string; readonly store: Promise<FsStore> }>()

  #closed: Promise<void> | undefined

  private constructor(path: string, lock: Disposable, options: DataFolderOptions) {
    this.path = path
    this.#lock = lock
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#disk = options.disk ?? new SystemDisk()
    this.#hasher.warm()
  }

  /**
   * Creates, checks and locks the folder; close it to let go. Throws `STORE_UNUSABLE`, with what mends it, when the
   * folder cannot be created or written, is in use, does not tell case, or holds symbolic links near its top.
   */
  static async open(options: DataFolderOptions): Promise<DataFolder> {
    const path = await createDataFolder(options.path)
    await checkWritable(path)
    const lock = lockFolder(path, join(path, LOCK_FILE))
    try {
      await checkCaseSensitive(path)
      await refuseSymlinks(path)
      return new DataFolder(path, lock, options)
    } catch (error) {
      lock[Symbol.dispose]()
      throw error
    }
  }

  /**
   * Opens a namespace, and the same store again for the same name and origin. A folder that somebody put there is
   * adopted as `origin`'s. Throws `STORE_UNUSABLE` when it holds another registry's bytes or cannot be written.
   */
  async openNamespace(options: NamespaceOptions): Promise<FsStore> {
    const { name, origin } = options
    const root = join(this.path, name)
    if (!isNamespaceFolder(name)) {
      throw new GatewayError(
        'STORE_UNUSABLE',
        `upstream ${JSON.stringify(name)} cannot name a folder; use a-z, 0-9, ".", "_" and "-"`,
      )
    }
    const open = this.#namespaces.get(name)
    if (open !== undefined) {
      checkOrigin(root, name, { registry: open.origin, createdAt: '' }, origin)
      return open.store
    }
    const store = this.#openStore(root, options)
    this.#namespaces.set(name, { origin, store })
    store.catch(() => this.#namespaces.delete(name))
    return store
  }

  /** Closes every namespace, waits until all is durable, and lets go of the folder. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const namespaces = [...this.#namespaces.values()]
    this.#namespaces.clear()
    await Promise.allSettled(namespaces.map(async ({ store }) => (await store).close()))
    await this.#hasher.close()
    this.#lock[Symbol.dispose]()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #openStore(root: string, { name, origin }: NamespaceOptions): Promise<FsStore> {
    await checkNamespaceFolder(root)
    const held = await loadOrigin(root)
    if (held !== undefined) checkOrigin(root, name, held, origin)
    const write = (): Promise<void> =>
      writeOrigin(root, { registry: origin, createdAt: new Date(this.#clock.now()).toISOString() })
    const exists = await lstat(root).then(
      () => true,
      () => false,
    )
    if (exists && held === undefined) await write()
    const { leftovers } = this.#options
    return FsStore.open({
      root,
      hasher: this.#hasher,
      disk: this.#disk,
      clock: this.#clock,
      ...(leftovers && { leftovers }),
      ...(!exists && { onFirstWrite: write }),
    })
  }
}
