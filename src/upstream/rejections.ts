/** Which credentials were refused lately: they are tried again seldom, and said to be broken once. */
import type { Clock } from '../async/clock.ts'
import { BoundedMap } from '../async/bounded-map.ts'
import type { Credential } from './credentials.ts'

export interface RejectionsOptions {
  readonly clock: Clock
  /** Called when a credential turns out broken, and not again until it has worked. */
  readonly onBroken: (label: string, by: string, detail: string) => void
}

/** A bad password tried too often locks the account. */
const HOLD_MS = 30_000
const MAX_SCOPES = 1_000
const MAX_CREDENTIALS = 64
/** So many refusals in a row, and it is the credential, not what was asked. */
const BROKEN_AFTER = 5

export interface Refusal {
  /** What was asked for. */
  readonly scope: string
  readonly status: number
  /** Host of the registry or token server. */
  readonly by: string
}

interface Health {
  readonly worked: boolean
  readonly refusals: number
  readonly heldUntil: number
  readonly isBroken: boolean
}

const UNKNOWN: Health = { worked: false, refusals: 0, heldUntil: 0, isBroken: false }

/**
 * Some token servers refuse a good credential for a repository that is missing (GHCR). So a refusal of a credential that
 * has worked counts for that scope alone, until several follow each other; one that never worked is held back as a whole.
 */
export class Rejections {
  readonly #options: RejectionsOptions
  readonly #health = new BoundedMap<Health>(MAX_CREDENTIALS)
  readonly #scopes = new BoundedMap<number>(MAX_SCOPES)

  constructor(options: RejectionsOptions) {
    this.#options = options
  }

  /** Whether `credential` should not be tried for `scope` now. */
  holds(credential: Credential, scope: string): boolean {
    const now = this.#options.clock.now()
    const scopeUntil = this.#scopes.get(scopeKeyOf(credential, scope)) ?? 0
    // A clock that was set back must not hold a credential for longer than it says.
    const isHeld = (until: number): boolean => until > now && until - now <= HOLD_MS
    return isHeld(scopeUntil) || isHeld(this.#healthOf(credential).heldUntil)
  }

  accept(credential: Credential): void {
    const health = this.#healthOf(credential)
    if (!health.worked || health.refusals > 0) this.#health.set(credential.id, { ...UNKNOWN, worked: true })
  }

  /** The source of `rule` failed, so there is no credential to try: said once, too. */
  missSource(rule: string, detail: string): void {
    const wasMissing = this.#health.get(rule) !== undefined
    this.#health.set(rule, UNKNOWN)
    if (!wasMissing) this.#options.onBroken(rule, 'its source', detail)
  }

  /** The source of `rule` works. */
  foundSource(rule: string): void {
    this.#health.delete(rule)
  }

  reject(credential: Credential, { scope, status, by }: Refusal): void {
    const health = this.#healthOf(credential)
    const until = this.#options.clock.now() + HOLD_MS
    // 403 says "you may not", not "I do not know you": whoever asks for missing names must not break a good credential.
    const refusals = health.refusals + (status === 401 ? 1 : 0)
    const isBroken = !health.worked || refusals >= BROKEN_AFTER
    this.#scopes.set(scopeKeyOf(credential, scope), until)
    this.#health.set(credential.id, { ...health, refusals, isBroken, heldUntil: isBroken ? until : health.heldUntil })
    if (isBroken && !health.isBroken) this.#options.onBroken(credential.label, by, `${status} for ${scope}`)
  }

  #healthOf(credential: Credential): Health {
    return this.#health.get(credential.id) ?? UNKNOWN
  }
}

function scopeKeyOf(credential: Credential, scope: string): string {
  return `${credential.id} ${scope}`
}
