/**
 * The fills under way in one namespace: at most one per digest, the repositories that may read each, and the one opening
 * that leads to it. An opening serves all who ask for the digest, so what refuses one repository must not refuse others.
 */
import { abortable } from '../async/abort.ts'
import type { Digest } from '../oci/digest.ts'
import type { Repository } from '../oci/repository.ts'
import type { Fill } from './fill.ts'

export interface RunningFill {
  readonly fill: Fill
  /** The repository whose right the transfer is made with. */
  readonly leader: Repository
  /** Those that get a link when the blob is here; the leader among them, until its right is revoked. */
  readonly repositories: Set<Repository>
}

export interface OpenedFill extends RunningFill {
  /** Whether it was opened for this caller. */
  readonly isNew: boolean
}

export interface OpenFillRequest {
  readonly digest: Digest
  readonly repository: Repository
  /** Ends the caller's wait; the opening itself is given up when nobody waits for it any more. */
  readonly signal: AbortSignal
}

type Outcome = { readonly running: RunningFill } | { readonly error: unknown }

interface Opening {
  readonly repository: Repository
  readonly outcome: Promise<Outcome>
  readonly abort: AbortController
  waiting: number
}

export class Fills {
  readonly #running = new Map<Digest, RunningFill>()
  readonly #openings = new Map<Digest, Opening>()

  /** The fill of `digest` that has not ended yet. */
  get(digest: Digest): RunningFill | undefined {
    const running = this.#running.get(digest)
    return running?.fill.isSettled === false ? running : undefined
  }

  /** Takes in a fill that has just begun, led by one repository; it is forgotten when it ends. */
  add(running: RunningFill): RunningFill {
    const { fill } = running
    this.#running.set(fill.digest, running)
    const forget = (): void => {
      if (this.#running.get(fill.digest) === running) this.#running.delete(fill.digest)
    }
    fill.done.then(forget, forget)
    return running
  }

  /**
   * Opens a fill, or waits for the opening under way. Undefined when an opening of somebody else failed, for a reason
   * that need not be this caller's: ask again.
   */
  async open(
    request: OpenFillRequest,
    start: (shared: AbortSignal) => Promise<RunningFill>,
  ): Promise<OpenedFill | undefined> {
    const { digest, repository, signal } = request
    const under = this.#openings.get(digest)
    const opening = under ?? this.#launch(digest, repository, start)
    const wasGivenUp = opening.abort.signal.aborted
    opening.waiting++
    try {
      const outcome = await abortable(opening.outcome, signal)
      if ('running' in outcome) return { ...outcome.running, isNew: under === undefined }
      if (wasGivenUp || opening.repository !== repository) return undefined
      throw outcome.error
    } finally {
      if (--opening.waiting === 0) opening.abort.abort(new DOMException('nobody waits for this any more', 'AbortError'))
    }
  }

  /** Bytes that all of them together will still write, as far as known. */
  get missingBytes(): number {
    return this.#running.values().reduce((sum, { fill }) => sum + fill.missingBytes, 0)
  }

  /** From now on `repository` may neither join a fill that runs nor get a link from it; who reads already reads on. */
  exclude(repository: Repository): void {
    for (const { repositories } of this.#running.values()) repositories.delete(repository)
  }

  *[Symbol.iterator](): Iterator<Fill> {
    for (const { fill } of this.#running.values()) yield fill
  }

  /** Resolves when no opening is under way. */
  async opened(): Promise<void> {
    await Promise.all(this.#openings.values().map(({ outcome }) => outcome))
  }

  #launch(digest: Digest, repository: Repository, start: (shared: AbortSignal) => Promise<RunningFill>): Opening {
    const abort = new AbortController()
    const outcome = start(abort.signal).then(
      (running) => ({ running }),
      (error: unknown) => ({ error }),
    )
    const opening: Opening = { repository, outcome, abort, waiting: 0 }
    this.#openings.set(digest, opening)
    // It stays until it has ended, given up or not: two of one digest would fight over one file.
    void outcome.then(() => this.#openings.delete(digest))
    return opening
  }
}
