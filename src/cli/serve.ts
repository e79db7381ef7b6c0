/** `entrepot serve`: from a configuration to a running gateway, and back to nothing on a signal. */
import { codeOf, GatewayError } from '../errors.ts'
import { formatBanner } from './banner.ts'
import { EXIT } from './exit.ts'
import { loadChosenConfig, writeProblems, writeWarnings, type ConfigChoice } from './problems.ts'
import type { Log } from '../telemetry/log.ts'
import type { Gateway } from '../gateway.ts'
import type { Runtime } from './runtime.ts'
import type { Surroundings } from './terminal.ts'

/** The part of `process` that serve listens to. */
export interface ProcessEvents {
  on(event: string, listener: (...details: unknown[]) => void): unknown
  off(event: string, listener: (...details: unknown[]) => void): unknown
  /** Ends the process now. */
  exit(code: number): void
}

const STOP_SIGNALS = { SIGTERM: 15, SIGINT: 2 } as const
type StopSignal = keyof typeof STOP_SIGNALS

const HANGUP = 'SIGHUP is ignored: a changed configuration is read at the next start'
/** A failed gateway has this long to let go of its files before the process ends. */
const FAILURE_GRACE_MS = 5_000
/** A start that is given up has this long to let go of its locks and ports before the process ends. */
const ABANDON_GRACE_MS = 2_000

/**
 * Serves until a signal. SIGTERM and SIGINT drain, or end a start under way; a second one exits at once with 128 + its
 * number. Resolves to the exit code: 0 after a drain, 2 for a configuration that cannot be used, 1 for any other failure.
 */
export async function serve(
  choice: ConfigChoice,
  openRuntime: () => Promise<Runtime>,
  world: Surroundings,
  events: ProcessEvents,
): Promise<number> {
  const { err } = world
  const loaded = loadChosenConfig(choice, world)
  writeWarnings(loaded.warnings, err)
  if (loaded.config === undefined) {
    writeProblems(loaded.problems, err)
    return EXIT.usage
  }
  const { config, places } = loaded
  const runtime = await openRuntime()
  const log = runtime.openLog(config)
  // Before anything listens: as PID 1 a signal without a handler does nothing at all.
  using stop = new StopRequest(events, log)
  using starting = new Starting((signal) =>
    runtime.startGateway({ config, places, log, version: world.version, signal }),
  )
  let gateway: Gateway | undefined
  try {
    gateway = await Promise.race([starting.gateway, stop.reason.then(() => undefined)])
  } catch (error) {
    return refuseStart(error, world)
  }
  if (gateway !== undefined) err.write(formatBanner({ config, gateway, version: world.version, out: err }))
  const reason = await stop.reason
  gateway ??= await starting.abandon()
  await gateway?.close(reason)
  return reason === 'failure' ? EXIT.failure : EXIT.ok
}

/** A start under way. It may stand in a call that no signal ends, such as a `stat` on a dead network mount. */
class Starting {
  readonly gateway: Promise<Gateway>
  readonly #abandoned = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(start: (signal: AbortSignal) => Promise<Gateway>) {
    this.gateway = start(this.#abandoned.signal)
  }

  /** Ends it; gives the gateway if it came up all the same. After `ABANDON_GRACE_MS` it is left as it is. */
  async abandon(): Promise<Gateway | undefined> {
    this.#abandoned.abort(new DOMException('told to stop while starting', 'AbortError'))
    const { promise: late, resolve } = Promise.withResolvers<undefined>()
    this.#timer = setTimeout(() => resolve(undefined), ABANDON_GRACE_MS)
    return Promise.race([this.gateway.catch(() => undefined), late])
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }
}

function refuseStart(error: unknown, { err }: Surroundings): number {
  const isOurs = error instanceof GatewayError
  // Somebody else's error is a defect of ours: its stack is what a report needs.
  const text = isOurs ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
  err.write(`${err.paint('red', 'entrepot cannot start:')} ${text}\n`)
  return codeOf(error) === 'CONFIG_INVALID' ? EXIT.usage : EXIT.failure
}

/** Waits for a reason to stop; disposing it takes its listeners off again. */
class StopRequest {
  readonly reason: Promise<StopSignal | 'failure'>
  readonly #events: ProcessEvents
  readonly #listeners: readonly (readonly [string, (...details: unknown[]) => void])[]

  constructor(events: ProcessEvents, log: Log) {
    this.#events = events
    const { promise, resolve } = Promise.withResolvers<StopSignal | 'failure'>()
    this.reason = promise
    let isStopping = false
    const onSignal = (signal: StopSignal) => () => {
      if (isStopping) return events.exit(128 + STOP_SIGNALS[signal])
      isStopping = true
      log.event('gateway.stopping', { signal })
      resolve(signal)
    }
    const onFailure = (error: unknown): void => {
      log.event('defect.caught', {
        reason: error instanceof Error ? error.message : String(error),
        stack: error instanceof Error ? error.stack : undefined,
      })
      setTimeout(() => events.exit(EXIT.failure), FAILURE_GRACE_MS).unref()
      isStopping = true
      resolve('failure')
    }
    const onHangup = (): void => log.event('config.warned', { reason: HANGUP })
    this.#listeners = [
      ['SIGTERM', onSignal('SIGTERM')],
      ['SIGINT', onSignal('SIGINT')],
      ['SIGHUP', onHangup],
      ['uncaughtException', onFailure],
      ['unhandledRejection', onFailure],
    ]
    for (const [event, listener] of this.#listeners) events.on(event, listener)
  }

  [Symbol.dispose](): void {
    for (const [event, listener] of this.#listeners) this.#events.off(event, listener)
  }
}
