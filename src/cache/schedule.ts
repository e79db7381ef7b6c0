/**
 * Which bytes of a blob to fetch next. Pure: the state of a fill in, at most one transfer out.
 *
 * 1. A reader that waits for a byte which no running transfer will bring soon gets a transfer of its own, from that
 *    byte on (a range far ahead of the front must not wait for the front).
 * 2. Otherwise the first bytes that somebody wants and nobody brings: the whole gap for a small blob, a segment within
 *    a window at the front for a large one, so that several connections share it and the first reader still streams.
 */
import { Intervals, type Interval } from '../async/intervals.ts'

/** A transfer under way: bytes `[position, to)` are still to come. */
export interface Claim {
  readonly position: number
  readonly to: number
}

/** What one reader is here for. */
export interface Want {
  readonly spans: readonly Interval[]
  /** The byte it waits for right now. */
  readonly waitingAt: number | undefined
}

export interface SchedulePolicy {
  /** Connections for one blob. */
  readonly connections: number
  /** Blobs below this many bytes are fetched by one connection. */
  readonly parallelFromBytes: number
  readonly segmentBytes: number
  /** Transfers for waiting readers may go above `connections` up to this. */
  readonly urgentConnections: number
  /** A byte this near to a running transfer is awaited rather than asked for again: about one round trip of data. */
  readonly nearBytes: number
}

/** Bytes to be fetched by one more transfer. */
export interface Part extends Interval {
  /** The claim that must end where this transfer starts, so that no byte is fetched twice. */
  readonly shortens?: Claim
}

export interface ScheduleState {
  readonly size: number
  readonly held: Intervals
  readonly claims: readonly Claim[]
  readonly wants: readonly Want[]
  readonly policy: SchedulePolicy
  /** The upstream does not honour ranges, or asked us to slow down. */
  readonly isSingle: boolean
}

/** The next transfer to start, or undefined when nothing should start now. */
export function planTransfer(state: ScheduleState): Part | undefined {
  return planUrgent(state) ?? planNext(state)
}

/** Whether a transfer under way brings `position` without more ado. */
export function isArriving(claims: readonly Claim[], position: number, nearBytes: number): boolean {
  return claims.some(
    (claim) => claim.position <= position && position < claim.to && position - claim.position <= nearBytes,
  )
}

function planUrgent(state: ScheduleState): Part | undefined {
  const { held, claims, policy } = state
  if (claims.length >= (state.isSingle ? 1 : policy.urgentConnections)) return undefined
  for (const { waitingAt, spans } of state.wants) {
    if (waitingAt === undefined || held.heldFrom(waitingAt) > 0) continue
    if (isArriving(claims, waitingAt, policy.nearBytes)) continue
    const span = spans.find(({ from, to }) => from <= waitingAt && waitingAt < to)
    const gap = span && held.firstGap(waitingAt, span.to)
    if (gap === undefined) continue
    const ahead = claims.filter((claim) => claim.position > waitingAt).map((claim) => claim.position)
    const to = Math.min(gap.to, ...ahead, waitingAt + transferLimit(state))
    const owner = claims.find((claim) => claim.position <= waitingAt && waitingAt < claim.to)
    // A short range inside another transfer's way is cheaper fetched twice than paid for with a broken connection.
    const shortens = owner !== undefined && to - waitingAt > policy.nearBytes ? owner : undefined
    return shortens === undefined ? { from: waitingAt, to } : { from: waitingAt, to, shortens }
  }
  return undefined
}

function planNext(state: ScheduleState): Part | undefined {
  const { held, claims, policy } = state
  const isLarge = state.size >= policy.parallelFromBytes
  const limit = isLarge && !state.isSingle ? policy.connections : 1
  if (claims.length >= limit) return undefined
  const taken = new Intervals([...held.toArray(), ...claims.map(({ position, to }) => ({ from: position, to }))])
  const windowBytes = 2 * policy.connections * policy.segmentBytes
  for (const { spans } of state.wants) {
    for (const span of spans) {
      const gap = taken.firstGap(span.from, span.to)
      const front = held.firstGap(span.from, span.to)
      if (gap === undefined || front === undefined || gap.from >= front.from + windowBytes) continue
      return { from: gap.from, to: Math.min(gap.to, gap.from + transferLimit(state)) }
    }
  }
  return undefined
}

function transferLimit(state: ScheduleState): number {
  return state.size >= state.policy.parallelFromBytes && !state.isSingle ? state.policy.segmentBytes : Infinity
}
