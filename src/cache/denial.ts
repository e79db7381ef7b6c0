/**
 * What does it mean that the upstream denies a repository? Pure; `now` is an argument. Rule: design.md section 6. An
 * expired credential, a misconfigured registry and a right taken back all look the same once, so once decides nothing.
 */

/** How long after the first denial another one counts as the second. */
export const CONFIRM_AFTER_MS = 60_000

export interface DenialFacts {
  readonly now: number
  /** Epoch ms of the first denial with no success after it. */
  readonly deniedSince: number
  /** No credential is configured for the repository: nobody took a right back that was given to us by name. */
  readonly isAnonymous: boolean
  /** For how long an anonymous caller keeps serving what it is denied. */
  readonly deniedForMs: number
  /** Epoch ms at which the same credential last opened another repository; undefined: not seen. */
  readonly workedElsewhereAt: number | undefined
}

/**
 * `suspected`: seen once. `tolerated`: we are anonymous and still patient. `unproven`: seen twice, but the credential
 * may be broken as a whole. `revoked`: the right is gone. All but the last serve what is held.
 */
export type DenialVerdict = 'suspected' | 'tolerated' | 'unproven' | 'revoked'

export function judgeDenial(facts: DenialFacts): DenialVerdict {
  const { now, deniedSince, isAnonymous, deniedForMs, workedElsewhereAt } = facts
  const ageMs = now - deniedSince
  if (ageMs < CONFIRM_AFTER_MS) return 'suspected'
  if (isAnonymous) return ageMs < deniedForMs ? 'tolerated' : 'revoked'
  return workedElsewhereAt !== undefined && workedElsewhereAt >= deniedSince ? 'revoked' : 'unproven'
}
