/** A gateway in this process, from configuration text, on free ports and a folder of its own. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../../src/async/clock.ts'
import { loadConfig } from '../../src/config/load.ts'
import { startGateway, type KeepingTimes } from '../../src/gateway.ts'
import { createLog, type LogDestination } from '../../src/telemetry/log.ts'

export interface StartOptions {
  /** Text of each file in `upstreams.d`, by upstream name. */
  readonly upstreams: Readonly<Record<string, string>>
  /** Text of entrepot.yaml below `listen`, `admin` and `data`, or instead of them. */
  readonly main?: string
  /** Default of the first listener. */
  readonly default?: string
  /** An earlier gateway's folder, to be started on again. */
  readonly data?: string
  readonly env?: Readonly<Record<string, string>>
  /** What tags and refusals age by; timeouts are real. */
  readonly clock?: Clock
  /** When things are evicted and swept. */
  readonly keeping?: KeepingTimes
}

export interface LoggedEvent {
  readonly event: string
  readonly [field: string]: unknown
}

export interface TestGateway extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` of the first listener. */
  readonly url: string
  readonly port: number
  readonly ports: readonly number[]
  readonly adminUrl: string
  readonly data: string
  /** Everything logged so far. */
  readonly events: readonly LoggedEvent[]
  /** Stops and keeps the folder. */
  stop(): Promise<void>
}

/** Starts; disposing stops it and removes its folder unless `data` was given. */
export async function startTestGateway(options: StartOptions): Promise<TestGateway> {
  const folder = await mkdtemp(join(tmpdir(), 'entrepot-test-'))
  const data = options.data ?? join(folder, 'data')
  await mkdir(join(folder, 'upstreams.d'))
  for (const [name, text] of Object.entries(options.upstreams)) {
    await writeFile(join(folder, 'upstreams.d', `${name}.yaml`), text)
  }
  const usual = [
    'listen:',
    '  - address: 127.0.0.1:0',
    ...(options.default === undefined ? [] : [`    default: ${options.default}`]),
    'admin: { address: 127.0.0.1:0 }',
    'drain: { delay: 0s, timeout: 5s }',
    'keep: { free: 0% }',
  ].join('\n')
  const main = options.main?.includes('listen:') ? options.main : `${usual}\n${options.main ?? ''}`
  await writeFile(join(folder, 'entrepot.yaml'), `data: ${data}\n${main}\n`)
  const loaded = loadConfig({
    configFile: join(folder, 'entrepot.yaml'),
    shippedUpstreams: join(folder, 'none'),
    workingFolder: folder,
    env: options.env ?? {},
  })
  if (loaded.config === undefined) throw new Error(loaded.problems.map(({ message }) => message).join('\n'))
  const events: LoggedEvent[] = []
  const log = createLog({ level: 'debug', pretty: false, destination: collector(events) })
  const { config, places } = loaded
  const clock = options.clock === undefined ? {} : { clock: options.clock }
  const keeping = options.keeping === undefined ? {} : { keeping: options.keeping }
  const gateway = await startGateway({ config, places, log, version: 'test', ...clock, ...keeping })
  const ports = gateway.listeners.map(({ port }) => port)
  const [port = 0] = ports
  return {
    url: `${config.listeners[0]?.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    ports,
    adminUrl: `http://127.0.0.1:${gateway.admin.port}`,
    data,
    events,
    stop: () => gateway.close('test'),
    [Symbol.asyncDispose]: async () => {
      await gateway.close('test')
      if (options.data === undefined) await rm(folder, { recursive: true, force: true })
    },
  }
}

function collector(events: LoggedEvent[]): LogDestination {
  return {
    write(text: string) {
      const parsed: unknown = JSON.parse(text)
      if (typeof parsed === 'object' && parsed !== null && 'event' in parsed) events.push(parsed as LoggedEvent)
      return true
    },
  }
}
