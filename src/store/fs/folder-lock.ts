/** Exclusive ownership of the data folder: a lock of the kernel that ends with the process, however that ends. */
import { DatabaseSync } from 'node:sqlite'
import { GatewayError } from '../../errors.ts'

const SQLITE_BUSY = 5

/**
 * Takes the lock by an exclusive SQLite transaction on `path`; dispose it to release. No pid file: containers share
 * pids, and a crash leaves one behind. SQLite also refuses a second taker inside one process, as bare file locks do not.
 * Throws `STORE_UNUSABLE` when somebody else has it, or when the file system knows no locks.
 */
export function lockFolder(folder: string, path: string): Disposable {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path, { timeout: 0 })
    // Nothing is ever written, so no journal file needs to stand beside the lock.
    database.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
    const held = database
    return { [Symbol.dispose]: () => held.close() }
  } catch (error) {
    database?.close()
    throw lockError(folder, path, error)
  }
}

function lockError(folder: string, path: string, cause: unknown): GatewayError {
  const errcode = cause instanceof Error && 'errcode' in cause ? cause.errcode : undefined
  if (errcode === SQLITE_BUSY) {
    return new GatewayError(
      'STORE_UNUSABLE',
      `data folder ${folder} is in use by another gateway (it holds ${path}); stop that one, or give this one a folder of its own by "data:"`,
      { cause },
    )
  }
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new GatewayError(
    'STORE_UNUSABLE',
    `data folder ${folder}: cannot lock ${path}: ${reason}; the folder must lie on a file system with working locks, and the file, if damaged, may be deleted while no gateway runs`,
    { cause },
  )
}
