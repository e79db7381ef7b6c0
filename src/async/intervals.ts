/** A set of byte ranges. Pure; half-open: `{ from: 0, to: 5 }` is bytes 0 to 4. */

export interface Interval {
  readonly from: number
  /** First byte after the interval. */
  readonly to: number
}

/** Disjoint intervals in ascending order; neighbours that touch are one. */
export class Intervals {
  #list: Interval[]

  constructor(list: Iterable<Interval> = []) {
    this.#list = []
    for (const interval of list) this.add(interval.from, interval.to)
  }

  add(from: number, to: number): void {
    if (from >= to) return
    const start = this.#firstEndingAtOrAfter(from)
    let end = start
    let low = from
    let high = to
    for (let next = this.#list[end]; next !== undefined && next.from <= to; next = this.#list[++end]) {
      low = Math.min(low, next.from)
      high = Math.max(high, next.to)
    }
    this.#list.splice(start, end - start, { from: low, to: high })
  }

  remove(from: number, to: number): void {
    if (from >= to) return
    this.#list = this.#list.flatMap((held) => {
      if (held.to <= from || held.from >= to) return [held]
      const rest: Interval[] = []
      if (held.from < from) rest.push({ from: held.from, to: from })
      if (held.to > to) rest.push({ from: to, to: held.to })
      return rest
    })
  }

  /** How many bytes are held from `position` on without a gap; 0 when `position` itself is missing. */
  heldFrom(position: number): number {
    const held = this.#list[this.#firstEndingAtOrAfter(position + 1)]
    return held !== undefined && held.from <= position ? held.to - position : 0
  }

  /** The first gap within `[from, to)`; undefined when all of it is held. */
  firstGap(from: number, to: number): Interval | undefined {
    const start = from + this.heldFrom(from)
    if (start >= to) return undefined
    const next = this.#list[this.#firstEndingAtOrAfter(start + 1)]
    return { from: start, to: next === undefined ? to : Math.min(to, next.from) }
  }

  contains(from: number, to: number): boolean {
    return from >= to || this.heldFrom(from) >= to - from
  }

  /** Total bytes held. */
  get bytes(): number {
    return this.#list.reduce((sum, held) => sum + held.to - held.from, 0)
  }

  toArray(): readonly Interval[] {
    return [...this.#list]
  }

  /** Index of the first interval that ends at or after `position` (binary search). */
  #firstEndingAtOrAfter(position: number): number {
    let low = 0
    let high = this.#list.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const held = this.#list[middle]
      if (held !== undefined && held.to < position) low = middle + 1
      else high = middle
    }
    return low
  }
}
