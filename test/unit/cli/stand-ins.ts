/** Stand-ins for what is outside the commands: streams, signals, and the running parts. */
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import type { Gateway, GatewayOptions } from '../../../src/gateway.ts'
import type { FolderDesk, ProbedUpstream, Runtime } from '../../../src/cli/runtime.ts'
import type { ProcessEvents } from '../../../src/cli/serve.ts'
import type { Output, Surroundings } from '../../../src/cli/terminal.ts'
import type { Log } from '../../../src/telemetry/log.ts'
import type { ProbeReport, ProbeStep } from '../../../src/upstream/probe.ts'

export class TestOutput implements Output {
  readonly isTerminal = false
  readonly width: number
  text = ''

  constructor(width = Infinity) {
    this.width = width
  }

  write(text: string): void {
    this.text += text
  }

  paint(_style: unknown, text: string): string {
    return text
  }
}

export interface TestWorld extends Surroundings {
  readonly out: TestOutput
  readonly err: TestOutput
}

export function testWorld(workingFolder: string, env: Readonly<Record<string, string>> = {}): TestWorld {
  const programFolder = join(import.meta.dirname, '../../..')
  return { out: new TestOutput(), err: new TestOutput(), env, workingFolder, version: '1.2.3', programFolder }
}

/** Signals sent by `emit`; an exit is recorded, not done. */
export class TestProcess extends EventEmitter implements ProcessEvents {
  readonly exits: number[] = []

  exit(code: number): void {
    this.exits.push(code)
  }
}

/** A runtime whose gateway only remembers, with probes that answer what the test says. */
export class TestRuntime implements Runtime {
  readonly events: string[] = []
  readonly closed: string[] = []
  readonly started: GatewayOptions[] = []
  /** What starting does before it succeeds. */
  onStart: (options: GatewayOptions) => void | Promise<void> = () => undefined
  /** What closing waits for. */
  onClose: () => Promise<void> = () => Promise.resolve()
  probes: readonly ProbedUpstream[] = []

  openLog(): Log {
    return { event: (name) => void this.events.push(name), hide: () => undefined, isEnabled: () => true, dropped: 0 }
  }

  async startGateway(options: GatewayOptions): Promise<Gateway> {
    this.started.push(options)
    await this.onStart(options)
    return {
      listeners: options.config.listeners.map(({ address, tls }) => {
        return { address: address.host ?? '', port: address.port, tls: tls !== undefined }
      }),
      admin: { address: options.config.admin.address.host ?? '', port: options.config.admin.address.port },
      close: async (reason) => {
        this.closed.push(reason)
        await this.onClose()
      },
    }
  }

  /** What a folder's desk does; none is there unless a test says so. */
  desk: () => Promise<FolderDesk> = () => Promise.reject(new Error('this test has no folder'))

  openFolderDesk(): Promise<FolderDesk> {
    return this.desk()
  }

  openProbes(): { upstreams: readonly ProbedUpstream[]; [Symbol.asyncDispose](): Promise<void> } {
    return { upstreams: this.probes, [Symbol.asyncDispose]: () => Promise.resolve() }
  }
}

export function step(detail: string, ok = true, code?: string): ProbeStep {
  return { ok, detail, ms: 7, ...(code === undefined ? {} : { code }) }
}

/** An upstream whose probe finds `endpoints` and whose HEAD does `head`. */
export function probed(
  name: string,
  endpoints: readonly Partial<ProbeReport['endpoints'][number]>[],
  head: () => Promise<never> | Promise<{ digest: undefined; mediaType: undefined; size: undefined }> = () =>
    Promise.resolve({ digest: undefined, mediaType: undefined, size: undefined }),
): ProbedUpstream {
  const whole = endpoints.map((endpoint) => {
    return { endpoint: name, dns: step('192.0.2.1'), connect: step('TLSv1.3'), auth: step('anonymous'), ...endpoint }
  })
  return {
    name,
    probe: () => Promise.resolve({ upstream: name, endpoints: whole, head: undefined }),
    headManifest: head,
  }
}
