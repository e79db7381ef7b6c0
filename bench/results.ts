// The figures of a run: rows of samples by peer, what failed, and the arithmetic on them. Pure.

import type { PeerName } from './peers.ts'

/** What a row measures. `better` is undefined where neither direction is: such a row is there to judge the others by. */
export interface RowKey {
  readonly label: string
  readonly unit: string
  readonly better?: 'more' | 'less'
}

export interface Row extends RowKey {
  readonly scenario: string
  readonly samples: Partial<Record<PeerName, number[]>>
}

export interface Failure {
  readonly scenario: string
  readonly peer: PeerName
  readonly message: string
}

export class Results {
  readonly rows: Row[] = []
  readonly failures: Failure[] = []

  /** Adds one sample. Rows stand in the order in which they were first recorded. */
  record(scenario: string, key: RowKey, peer: PeerName, value: number): void {
    let row = this.rows.find((one) => one.scenario === scenario && one.label === key.label && one.unit === key.unit)
    if (row === undefined) {
      row = { scenario, ...key, samples: {} }
      this.rows.push(row)
    }
    const samples = row.samples[peer] ?? []
    samples.push(value)
    row.samples[peer] = samples
  }
}

export interface Summary {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Undefined without samples. Of an even number the median is the mean of the middle two. */
export function summarize(samples: readonly number[] | undefined): Summary | undefined {
  const sorted = (samples ?? []).toSorted((a, b) => a - b)
  const upper = sorted[Math.floor(sorted.length / 2)]
  const lower = sorted[Math.floor((sorted.length - 1) / 2)]
  const [min] = sorted
  const max = sorted.at(-1)
  if (upper === undefined || lower === undefined || min === undefined || max === undefined) return undefined
  return { median: (lower + upper) / 2, min, max }
}

/**
 * How many times better Entrepot's median is than that of `peer`: 2 is twice the rate or half the time, below 1 it is
 * behind. Undefined where one of them has no samples, the row has no better direction, or the division has no result.
 */
export function advantage(row: Row, peer: PeerName): number | undefined {
  const ours = summarize(row.samples.entrepot)?.median
  const theirs = summarize(row.samples[peer])?.median
  if (ours === undefined || theirs === undefined || row.better === undefined) return undefined
  const ratio = row.better === 'more' ? ours / theirs : theirs / ours
  return Number.isFinite(ratio) ? ratio : undefined
}

/** Whether Entrepot's median is worse than that of `peer`, by however little. */
export function isBehind(row: Row, peer: PeerName): boolean {
  const ours = summarize(row.samples.entrepot)?.median
  const theirs = summarize(row.samples[peer])?.median
  if (ours === undefined || theirs === undefined || row.better === undefined) return false
  return row.better === 'more' ? ours < theirs : ours > theirs
}

/** Whether the samples of both overlap: the difference of the medians is then within what rounds differ by. */
export function isWithinSpread(row: Row, peer: PeerName): boolean {
  const ours = summarize(row.samples.entrepot)
  const theirs = summarize(row.samples[peer])
  if (ours === undefined || theirs === undefined) return false
  return ours.min <= theirs.max && theirs.min <= ours.max
}
