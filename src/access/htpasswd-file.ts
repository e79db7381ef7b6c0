/** The htpasswd file on the disk, read again when it changes: a removed user is out within a second. */
import { readFileSync, statSync } from 'node:fs'
import type { Clock } from '../async/clock.ts'
import { GatewayError } from '../errors.ts'
import { MAX_HTPASSWD_BYTES, parseHtpasswd } from './htpasswd.ts'

/** The users at one time. `generation` differs whenever anything in the file did. */
export interface Users {
  readonly hashes: ReadonlyMap<string, string>
  readonly generation: number
}

export interface HtpasswdFileOptions {
  readonly path: string
  readonly clock: Clock
  /** Told when a changed file was taken over. Must not throw. */
  readonly onReload: (users: number) => void
  /** Told once for each change that could not be used; the last good users stand. Must not throw. */
  readonly onProblem: (reason: string) => void
}

/** How often the file is looked at, while there are requests. */
const LOOK_INTERVAL_MS = 1_000

export class HtpasswdFile {
  readonly #options: HtpasswdFileOptions
  #users: Users
  #stamp: string | undefined
  #lookedAt: number

  /** Reads the file. Throws CONFIG_INVALID when it cannot be read or a line cannot be used. */
  constructor(options: HtpasswdFileOptions) {
    this.#options = options
    this.#stamp = stampOf(options.path)
    this.#users = { hashes: readUsers(options.path), generation: 1 }
    this.#lookedAt = options.clock.now()
  }

  /** The users as the file has them, a second old at most. All or nothing: a file with a bad line changes nothing. */
  current(): Users {
    const { path, clock, onReload, onProblem } = this.#options
    const now = clock.now()
    // A clock that was set back must not stop the looking.
    if (Math.abs(now - this.#lookedAt) < LOOK_INTERVAL_MS) return this.#users
    this.#lookedAt = now
    const stamp = stampOf(path)
    if (stamp === this.#stamp) return this.#users
    // Kept before reading: a change while we read is then seen at the next look.
    this.#stamp = stamp
    try {
      this.#users = { hashes: readUsers(path), generation: this.#users.generation + 1 }
      onReload(this.#users.hashes.size)
    } catch (error) {
      onProblem(error instanceof Error ? error.message : String(error))
    }
    return this.#users
  }
}

function readUsers(path: string): ReadonlyMap<string, string> {
  const { users, problems } = parseHtpasswd(readText(path))
  const [first] = problems
  if (first !== undefined) throw new GatewayError('CONFIG_INVALID', `${path}:${first.line}: ${first.message}`)
  return users
}

function readText(path: string): string {
  try {
    const { size } = statSync(path)
    if (size <= MAX_HTPASSWD_BYTES) return readFileSync(path, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : 'not readable'
    throw new GatewayError('CONFIG_INVALID', `reading the htpasswd file ${path}: ${reason}`, { cause })
  }
  throw new GatewayError('CONFIG_INVALID', `${path}: is larger than ${MAX_HTPASSWD_BYTES} bytes, no htpasswd file`)
}

/** What changes when a file is written or swapped; undefined while it is not there. */
function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`
}
