/** A scripted registry and a gateway in front of it: what most integration tests start with. */
import { ask, type Answer, type AskOptions } from './client.ts'
import { startScriptedRegistry, type RegistryOptions, type ScriptedRegistry } from './scripted-registry.ts'
import { startTestGateway, type StartOptions, type TestGateway } from './start-gateway.ts'

export interface PairOptions extends Omit<StartOptions, 'upstreams'> {
  readonly registry?: RegistryOptions
  /** YAML of the upstream `origin` below its `url`. */
  readonly upstream?: string
}

export interface GatewayPair extends AsyncDisposable {
  readonly registry: ScriptedRegistry
  readonly gateway: TestGateway
  /** Asks the gateway for `/v2/<path>`. */
  readonly get: (path: string, options?: AskOptions) => Promise<Answer>
  /** How many events of that name were logged, with these fields. */
  readonly logged: (event: string, fields?: Readonly<Record<string, unknown>>) => number
}

/** The upstream is named `origin` and is the default; disposing ends both. */
export async function startPair(options: PairOptions = {}): Promise<GatewayPair> {
  const { registry: registryOptions, upstream = '', ...rest } = options
  const registry = await startScriptedRegistry(registryOptions)
  const started = await startTestGateway({
    ...rest,
    upstreams: { origin: `url: ${registry.url}\n${upstream}` },
    default: 'origin',
  }).catch(async (error: unknown) => {
    await registry.close()
    throw error
  })
  return {
    registry,
    gateway: started,
    get: (path, asking) => ask(`${started.url}/v2/${path}`, asking),
    logged: (event, fields = {}) =>
      started.events.filter(
        (logged) => logged.event === event && Object.entries(fields).every(([name, value]) => logged[name] === value),
      ).length,
    [Symbol.asyncDispose]: async () => {
      await started[Symbol.asyncDispose]()
      await registry.close()
    },
  }
}

/** Waits until `isTrue`, looking every 10 ms; rejects after `withinMs`. */
export async function until(what: string, isTrue: () => boolean | Promise<boolean>, withinMs = 5000): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${withinMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
