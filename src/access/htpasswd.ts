/** An htpasswd file: users and bcrypt hashes. Pure; never repeats a hash in a message. */

/** What a file says: the hash of each user, or everything that is wrong with it. */
export interface Htpasswd {
  readonly users: ReadonlyMap<string, string>
  readonly problems: readonly HtpasswdProblem[]
}

export interface HtpasswdProblem {
  /** From 1. */
  readonly line: number
  readonly message: string
}

/** A larger file is some other file. */
export const MAX_HTPASSWD_BYTES = 1024 * 1024
const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/
const MIN_COST = 4
/** Each step doubles the time: 10 takes about 0.1 s, 14 more than a second, and all logins share the threads. */
const MAX_COST = 14
const HOW = 'write it by `htpasswd -B FILE USER`'

/** Parses a whole file; blank lines and lines that start with `#` are skipped. Never throws. */
export function parseHtpasswd(text: string): Htpasswd {
  const users = new Map<string, string>()
  const problems: HtpasswdProblem[] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const colon = line.indexOf(':')
    const user = line.slice(0, Math.max(0, colon))
    const hash = line.slice(colon + 1).trim()
    const message = problemOf(user, hash, users)
    if (message === undefined) users.set(user, hash)
    else problems.push({ line: index + 1, message })
  }
  if (users.size === 0 && problems.length === 0) problems.push({ line: 1, message: `names no user: ${HOW}` })
  return { users, problems }
}

/** The cost of a bcrypt hash that {@link parseHtpasswd} has taken. */
export function costOf(hash: string): number {
  return Number(BCRYPT.exec(hash)?.[1])
}

function problemOf(user: string, hash: string, users: ReadonlyMap<string, string>): string | undefined {
  if (user === '') return `is no line of the form user:hash: ${HOW}`
  if (/\p{Cc}/u.test(user)) return 'the user name holds a control character'
  if (users.has(user)) return `user ${user} is given twice: keep one`
  if (!BCRYPT.test(hash)) return `user ${user}: the hash is not of bcrypt ($2y$…), the only kind taken: ${HOW}`
  const cost = costOf(hash)
  if (cost >= MIN_COST && cost <= MAX_COST) return undefined
  return `user ${user}: bcrypt cost ${cost} is outside ${MIN_COST} to ${MAX_COST}: ${HOW} -C 10`
}
