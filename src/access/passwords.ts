/**
 * Is this `Authorization` header that of a user? A check costs a tenth of a second on purpose, so what was right is
 * remembered for a minute under a keyed hash, and what is wrong is limited by address (faults.md R95).
 */
import { isUtf8 } from 'node:buffer'
import { createHmac, randomBytes } from 'node:crypto'
import { BoundedMap } from '../async/bounded-map.ts'
import type { Clock } from '../async/clock.ts'
import { SingleFlight } from '../async/single-flight.ts'
import { codeOf, GatewayError } from '../errors.ts'
import type { FailureBudget } from './failure-budget.ts'
import { costOf } from './htpasswd.ts'
import type { Users } from './htpasswd-file.ts'

export interface PasswordsOptions {
  readonly users: { current(): Users }
  /** Whether a password is the one of a hash: slow, may reject with OVERLOADED. */
  readonly isRight: (
    check: { readonly password: string; readonly hash: string },
    signal: AbortSignal,
  ) => Promise<boolean>
  readonly failures: FailureBudget
  readonly clock: Clock
}

export interface PasswordTry {
  /** Value of the `Authorization` header. */
  readonly authorization: string
  /** Of the client, for the limit of failures. */
  readonly address: string
  readonly signal: AbortSignal
}

interface Known {
  readonly user: string
  readonly generation: number
  readonly until: number
}

interface Account {
  readonly user: string
  readonly password: string
}

const REMEMBERED_MS = 60_000
const MAX_REMEMBERED = 4_096
const MAX_ACCOUNT_LENGTH = 1_024
/** In the alphabet of bcrypt: a salt of 22 characters and a hash of 31 that nobody has a password for. */
const NOBODY = 'Entrepot0Entrepot0Entr'.padEnd(53, '.')

export class Passwords {
  readonly #options: PasswordsOptions
  readonly #secret = randomBytes(32)
  readonly #known = new BoundedMap<Known>(MAX_REMEMBERED)
  readonly #checks = new SingleFlight<boolean>()
  #costs: { readonly of: Users['hashes'] | undefined; readonly list: readonly number[] } = { of: undefined, list: [] }

  constructor(options: PasswordsOptions) {
    this.#options = options
  }

  /**
   * The user whose password the header holds; undefined when it is wrong, of another scheme, or no header we understand.
   * A user that does not exist takes the time of one that does. Rejects with LOGIN_THROTTLED after too many failures of
   * the address, and with OVERLOADED; neither ends what is remembered already.
   */
  async userOf({ authorization, address, signal }: PasswordTry): Promise<string | undefined> {
    const { users, failures, clock } = this.#options
    const current = users.current()
    const key = this.#digest(authorization)
    const held = this.#known.get(key)
    const wasRight = held !== undefined && held.generation === current.generation
    if (wasRight && held.until > clock.now()) return held.user
    const account = parseBasic(authorization)
    if (account === undefined) return undefined
    // Whoever was right with these very words is no guesser: one bad client must not lock out its neighbours behind a NAT.
    if (!wasRight && !failures.take(address)) {
      throw new GatewayError('LOGIN_THROTTLED', `a login from ${address}: too many of its last ones failed`)
    }
    const giveBack = (): void => (wasRight ? undefined : failures.giveBack(address))
    const isRight = await this.#checks
      .join(`${current.generation} ${key}`, signal, (shared) => this.#check(account, current, shared))
      .catch((error: unknown) => {
        // Not where the client left: the thread works on, and leaving must not be the way to keep it working for nothing.
        if (codeOf(error) !== undefined) giveBack()
        throw error
      })
    if (!isRight) return undefined
    giveBack()
    // With the generation the check began with: a file that changed meanwhile makes this entry worth nothing.
    this.#known.set(key, { user: account.user, generation: current.generation, until: clock.now() + REMEMBERED_MS })
    return account.user
  }

  async #check({ user, password }: Account, { hashes }: Users, signal: AbortSignal): Promise<boolean> {
    const known = hashes.get(user)
    // Made for every user, so that the time of making it tells nothing either.
    const nobodys = this.#nobodys(user, hashes)
    const isRight = await this.#options.isRight({ password, hash: known ?? nobodys }, signal)
    return isRight && known !== undefined
  }

  /** A hash for a user there is not, with the cost of one there is; the same name always gets the same. */
  #nobodys(user: string, hashes: ReadonlyMap<string, string>): string {
    if (this.#costs.of !== hashes) this.#costs = { of: hashes, list: [...hashes.values()].map(costOf) }
    const costs = this.#costs.list
    const pick = createHmac('sha256', this.#secret).update(`nobody ${user}`).digest().readUInt32BE(0)
    const cost = costs[pick % costs.length] ?? 10
    return `$2b$${String(cost).padStart(2, '0')}$${NOBODY}`
  }

  #digest(authorization: string): string {
    return createHmac('sha256', this.#secret).update(authorization).digest('base64')
  }
}

/** User and password of a Basic header (RFC 7617): UTF-8, no control characters, the first colon divides. */
function parseBasic(authorization: string): Account | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(authorization)?.[1]
  if (encoded === undefined || encoded.length > 2 * MAX_ACCOUNT_LENGTH) return undefined
  const bytes = Buffer.from(encoded, 'base64')
  // Invalid sequences would all become the same replacement character, and so the same password.
  if (!isUtf8(bytes) || bytes.length > MAX_ACCOUNT_LENGTH) return undefined
  const text = bytes.toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 1 || /\p{Cc}/u.test(text)) return undefined
  return { user: text.slice(0, colon), password: text.slice(colon + 1) }
}
