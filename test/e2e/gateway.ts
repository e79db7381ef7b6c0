// Starts the gateway as its users do: `node src/main.ts serve --config FILE`, in a folder of its own, on free ports.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import type { GatewayAddress } from './clients.ts'
import { freePort, startServer } from './lab.ts'

/** One `upstreams.d` file; the keys are those of the gateway's own configuration. */
export interface UpstreamFile {
  readonly name: string
  readonly [key: string]: unknown
}

export interface GatewayOptions {
  /** Holds configuration, data and ledger. Started again over the same folder it has the same cache. */
  readonly folder: string
  /** Each gets a port of its own, and the host name `<name>.localhost`. */
  readonly upstreams: readonly UpstreamFile[]
  /** Upstream of a request that names none. Default: docker.io if it is declared. */
  readonly default?: string
  /** Certificates of the listener for all upstreams. Default: plain HTTP. */
  readonly tls?: readonly { readonly cert: string; readonly key: string; readonly hosts?: readonly string[] }[]
  /** More of `entrepot.yaml`. */
  readonly more?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
  /** Addresses of an earlier gateway, to be taken again. Default: free ones. */
  readonly at?: Pick<Gateway, 'all' | 'admin' | 'ports'>
}

export interface Gateway extends GatewayAddress, AsyncDisposable {
  /** host:port of the admin listener. */
  readonly admin: string
  readonly pid: number
  /** What it logged so far. */
  readonly lines: readonly string[]
  readonly exitCode: () => number | undefined
  readonly kill: (signal: NodeJS.Signals) => void
  /** SIGTERM, then waits for its end: it drains first, for 5 s at least. Dispose does not wait for that and kills. */
  readonly stop: () => Promise<void>
}

/** The checkout's own folder. */
export function projectFolder(): string {
  return fileURLToPath(new URL('../..', import.meta.url))
}

/** Writes the configuration, starts the gateway and waits for `/readyz`. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { folder, upstreams, at } = options
  const upstreamsFolder = join(folder, 'upstreams.d')
  await mkdir(upstreamsFolder, { recursive: true })
  const all = at?.all ?? `127.0.0.1:${await freePort()}`
  const admin = at?.admin ?? `127.0.0.1:${await freePort()}`
  const ports: Record<string, string> = {}
  for (const upstream of upstreams) {
    const port = Number(at?.ports[upstream.name]?.split(':').at(-1) ?? (await freePort()))
    ports[upstream.name] = `127.0.0.1:${port}`
    const routes = { hosts: [`${upstream.name}.localhost`], port, prefix: upstream.name }
    await writeFile(join(upstreamsFolder, `${upstream.name}.yaml`), stringify({ routes, ...upstream }))
  }
  const fallback = options.default ?? upstreams.find((upstream) => upstream.name === 'docker.io')?.name
  const configuration = {
    listen: [
      {
        address: all,
        ...(fallback === undefined ? {} : { default: fallback }),
        ...(options.tls === undefined ? {} : { tls: options.tls }),
      },
    ],
    admin: { address: admin },
    data: join(folder, 'data'),
    ledger: join(folder, 'data', 'ledger.sqlite'),
    upstreams: upstreamsFolder,
    ...options.more,
  }
  const file = join(folder, 'entrepot.yaml')
  await writeFile(file, stringify(configuration))
  const server = await startServer(
    process.execPath,
    [join(projectFolder(), 'src', 'main.ts'), 'serve', '--config', file],
    {
      cwd: folder,
      ...(options.env === undefined ? {} : { env: options.env }),
      ready: async () => {
        const response = await fetch(`http://${admin}/readyz`, { signal: AbortSignal.timeout(2000) })
        await response.body?.cancel()
        return response.status === 200
      },
    },
  )
  return {
    all,
    ports,
    admin,
    pid: server.pid,
    lines: server.lines,
    exitCode: server.exitCode,
    kill: server.kill,
    stop: server.stop,
    [Symbol.asyncDispose]: () => {
      server.kill('SIGKILL')
      return server.stop()
    },
  }
}
