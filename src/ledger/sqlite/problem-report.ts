/** Problems of one kind come in storms (a full disk fails every batch): each kind is told once a minute, with a count. */
import type { Clock } from '../../async/clock.ts'
import { GatewayError } from '../../errors.ts'
import type { ProblemTopic } from './messages.ts'

const QUIET_MS = 60_000

export class ProblemReport {
  readonly #tell: (error: Error) => void
  readonly #clock: Clock
  readonly #topics = new Map<ProblemTopic, { toldAt: number; untold: number }>()

  constructor(tell: (error: Error) => void, clock: Clock) {
    this.#tell = tell
    this.#clock = clock
  }

  add(topic: ProblemTopic, message: string, cause?: unknown): void {
    const now = this.#clock.now()
    const topicState = this.#topics.get(topic)
    if (topicState && now - topicState.toldAt < QUIET_MS) {
      topicState.untold++
      return
    }
    const untold = topicState?.untold ?? 0
    this.#topics.set(topic, { toldAt: now, untold: 0 })
    const more = untold === 0 ? '' : ` (and ${untold} more like this since it was last told)`
    this.#tell(new GatewayError('STORE_FAILED', message + more, { cause }))
  }
}
