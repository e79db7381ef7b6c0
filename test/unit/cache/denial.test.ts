import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CONFIRM_AFTER_MS, judgeDenial, type DenialFacts, type DenialVerdict } from '../../../src/cache/denial.ts'

const NOW = 1_800_000_000_000
const DAY = 86_400_000
const MINUTE = CONFIRM_AFTER_MS

function facts(parts: Partial<DenialFacts> & { readonly ageMs: number }): DenialFacts {
  const { ageMs, ...rest } = parts
  const usual = { now: NOW, isAnonymous: false, deniedForMs: 7 * DAY, workedElsewhereAt: undefined }
  return { ...usual, deniedSince: NOW - ageMs, ...rest }
}

const worked = (agoMs: number): Pick<DenialFacts, 'workedElsewhereAt'> => ({ workedElsewhereAt: NOW - agoMs })

const TABLE: readonly [name: string, facts: DenialFacts, verdict: DenialVerdict][] = [
  ['for the first time', facts({ ageMs: 0 }), 'suspected'],
  ['twice within a minute', facts({ ageMs: MINUTE - 1, ...worked(0) }), 'suspected'],
  ['twice, a minute apart, while the credential works elsewhere', facts({ ageMs: MINUTE, ...worked(0) }), 'revoked'],
  ['twice, the credential worked at the moment of the first', facts({ ageMs: MINUTE, ...worked(MINUTE) }), 'revoked'],
  ['twice, the credential worked only before', facts({ ageMs: MINUTE, ...worked(MINUTE + 1) }), 'unproven'],
  ['for a year, the credential works nowhere', facts({ ageMs: 365 * DAY }), 'unproven'],
  ['anonymously for a minute', facts({ ageMs: MINUTE, isAnonymous: true, ...worked(0) }), 'tolerated'],
  ['anonymously for less than deniedFor', facts({ ageMs: 7 * DAY - 1, isAnonymous: true }), 'tolerated'],
  ['anonymously for deniedFor', facts({ ageMs: 7 * DAY, isAnonymous: true }), 'revoked'],
  ['anonymously, with no patience, once', facts({ ageMs: 0, isAnonymous: true, deniedForMs: 0 }), 'suspected'],
  ['by a clock that was set back', facts({ ageMs: -DAY, ...worked(0) }), 'suspected'],
]

for (const [name, given, verdict] of TABLE) {
  test(`denied ${name}: ${verdict}`, () => assert.equal(judgeDenial(given), verdict))
}
