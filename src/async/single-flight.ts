/** One call per key. The work belongs to nobody in particular: it runs as long as somebody waits for it. */
import { abortable } from './abort.ts'

interface Flight<T> {
  readonly result: Promise<T>
  readonly abort: AbortController
  waiting: number
}

/**
 * Callers with the same key share one run of `start`. A caller's signal ends its own wait; when nobody waits any more
 * the run's signal aborts. A failed run is forgotten, so the next caller starts anew.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>()

  async join(key: string, signal: AbortSignal, start: (shared: AbortSignal) => Promise<T>): Promise<T> {
    const flight = this.#flights.get(key) ?? this.#launch(key, start)
    flight.waiting++
    try {
      return await abortable(flight.result, signal)
    } finally {
      if (--flight.waiting === 0) {
        this.#forget(key, flight)
        flight.abort.abort(new DOMException('nobody waits for this any more', 'AbortError'))
      }
    }
  }

  /** Whether a run for `key` is under way, so that a caller would join rather than lead. */
  has(key: string): boolean {
    return this.#flights.has(key)
  }

  #launch(key: string, start: (shared: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController()
    const flight: Flight<T> = { result: start(abort.signal), abort, waiting: 0 }
    this.#flights.set(key, flight)
    flight.result.catch(() => undefined).finally(() => this.#forget(key, flight))
    return flight
  }

  #forget(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key)
  }
}
