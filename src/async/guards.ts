/** Many hold a key at a time, or one has it alone. For what must not be taken away while it is being looked at. */

export class Guards {
  readonly #holds = new Map<string, number>()
  readonly #claims = new Map<string, Promise<void>>()

  /** Holds `key`, after waiting for a claim to end; others may hold it too. Dispose what it gives exactly once. */
  async hold(key: string): Promise<Disposable> {
    for (let claim = this.#claims.get(key); claim !== undefined; claim = this.#claims.get(key)) await claim
    this.#holds.set(key, (this.#holds.get(key) ?? 0) + 1)
    return { [Symbol.dispose]: () => this.#release(key) }
  }

  isHeld(key: string): boolean {
    return this.#holds.has(key)
  }

  /** Runs `work` while nobody holds `key`, and lets nobody hold it meanwhile. Undefined, at once, when somebody does. */
  async runAlone<T>(key: string, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#holds.has(key) || this.#claims.has(key)) return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#claims.set(key, promise)
    try {
      return await work()
    } finally {
      this.#claims.delete(key)
      resolve()
    }
  }

  #release(key: string): void {
    const left = (this.#holds.get(key) ?? 0) - 1
    if (left > 0) this.#holds.set(key, left)
    else this.#holds.delete(key)
  }
}
