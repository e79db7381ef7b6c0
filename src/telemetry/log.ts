/**
 * The log: events of the table in `events.ts` as JSON lines, or in a readable form on a terminal. A reader that stops
 * reading loses lines, never our time: a full pipe drops what does not fit, and says how much that was.
 */
import { pino } from 'pino'
import { EVENTS, type EventFields, type EventName, type FieldMark, type Level } from './events.ts'
import { formatLine } from './pretty.ts'
import { SecretSet } from './redact.ts'

/** Bytes that may wait for a slow reader of our output before lines are dropped. */
const MAX_QUEUED_BYTES = 1024 * 1024
/** A longer text of a field is cut. */
const MAX_TEXT_LENGTH = 2_000

/** Where lines go: `process.stdout`, or any stream. */
export interface LogDestination {
  write(text: string): unknown
  /** Bytes that were written and not yet taken. */
  readonly writableLength?: number
  readonly isTTY?: boolean
  on?(event: 'error', listener: (error: Error) => void): unknown
}

export interface LogOptions {
  /** Least level that is written. Default: `info`. */
  readonly level?: Level | 'silent'
  /** Readable lines instead of JSON. Default: when the destination is a terminal. */
  readonly pretty?: boolean
  readonly destination?: LogDestination
  /** What is replaced in texts that came from outside. */
  readonly secrets?: SecretSet
  readonly maxQueuedBytes?: number
}

export interface Log {
  /** Writes one event. Returns at once and never throws. */
  event<E extends EventName>(name: E, fields: EventFields<E>): void
  /** Makes a secret known that came up while running: no later line shows it. Bounded; see {@link SecretSet.addToken}. */
  hide(secret: string): void
  /** Whether events of this level are written, to spare the work of composing one. */
  isEnabled(level: Level): boolean
  /** Lines that were dropped so far, because nobody read them fast enough. */
  readonly dropped: number
}

export function createLog(options: LogOptions = {}): Log {
  const destination = options.destination ?? process.stdout
  const sink = new BoundedSink(destination, options.maxQueuedBytes ?? MAX_QUEUED_BYTES)
  const isPretty = options.pretty ?? destination.isTTY === true
  const secrets = options.secrets ?? new SecretSet()
  const logger = pino(
    {
      level: options.level ?? 'info',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => sink.write(isPretty ? formatLine(line) : line) },
  )

  const write = <E extends EventName>(name: E, fields: EventFields<E>): void => {
    const { level, fields: marks } = EVENTS[name]
    if (!logger.isLevelEnabled(level)) return
    logger[level]({ event: name, ...chosen(marks, fields, secrets) })
  }
  return {
    event: (name, fields) => {
      const lines = sink.takeUntold()
      if (lines > 0) write('log.dropped', { lines })
      write(name, fields)
    },
    hide: (secret) => secrets.addToken(secret),
    isEnabled: (level) => logger.isLevelEnabled(level),
    get dropped() {
      return sink.dropped
    },
  }
}

/** The fields the table lists, and no other that a wider object may carry. */
function chosen(
  marks: Readonly<Record<string, FieldMark>>,
  fields: object,
  secrets: SecretSet,
): Record<string, unknown> {
  const line: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(fields)) {
    const mark = marks[name]
    if (mark === undefined || value === undefined) continue
    line[name] = mark.startsWith('text') ? cut(secrets.scrub(String(value))) : value
  }
  return line
}

function cut(text: string): string {
  return text.length > MAX_TEXT_LENGTH ? `${text.slice(0, MAX_TEXT_LENGTH)}…` : text
}

/** Node queues what a pipe does not take; this bounds the queue. A file or terminal takes everything at once. */
class BoundedSink {
  readonly #destination: LogDestination
  readonly #maxQueuedBytes: number
  #isBroken = false
  #untold = 0
  dropped = 0

  constructor(destination: LogDestination, maxQueuedBytes: number) {
    this.#destination = destination
    this.#maxQueuedBytes = maxQueuedBytes
    // The reader is gone (EPIPE): there is nobody to tell, and unheard it would end the process.
    destination.on?.('error', () => (this.#isBroken = true))
  }

  write(line: string): void {
    if (!this.#isBroken && !this.#isFull()) {
      try {
        this.#destination.write(line)
        return
      } catch {
        // A full disk behind a redirect throws here; the line is lost, the next may fit.
      }
    }
    this.dropped++
    this.#untold++
  }

  /** Lines dropped since the last call, once there is room to say so; else 0. */
  takeUntold(): number {
    if (this.#untold === 0 || this.#isBroken || this.#isFull()) return 0
    const lines = this.#untold
    this.#untold = 0
    return lines
  }

  #isFull(): boolean {
    return (this.#destination.writableLength ?? 0) > this.#maxQueuedBytes
  }
}
