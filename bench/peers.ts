// What is measured, as its users would start it: Entrepot, the stock registry in proxy mode, and going direct; and nginx
// over plain files, which caches nothing and shows how far the load generators reach.

import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { freePort, labProgram, missingProgram } from '../test/e2e/lab.ts'
import type { Address } from './light-connection.ts'
import type { ServerCommand } from './server-process.ts'

export const PEER_NAMES = ['entrepot', 'stock', 'direct', 'static'] as const
export type PeerName = (typeof PEER_NAMES)[number]
/** The peers that are servers of their own; `direct` is the upstream itself. */
export type ServerName = Exclude<PeerName, 'direct'>

export const PEER_TITLES: Readonly<Record<PeerName, string>> = {
  entrepot: 'Entrepot',
  stock: 'stock registry',
  direct: 'direct',
  static: 'nginx, plain files',
}

/** How to start a server, and where it will listen. */
export interface PlannedServer {
  readonly address: Address
  readonly command: ServerCommand
}

const ENTREPOT = fileURLToPath(new URL('../src/main.ts', import.meta.url))
const HOST = '127.0.0.1'
const START_TIMEOUT_MS = 30_000

/** Why a peer cannot be had on this machine, with what to do about it; undefined when it can. */
export function whyMissing(name: PeerName): string | undefined {
  if (name === 'direct') return undefined
  if (name === 'entrepot') return existsSync(ENTREPOT) ? undefined : `${ENTREPOT} is not there`
  const why = missingProgram(name === 'stock' ? labProgram('registry') : 'nginx')
  return why === undefined ? undefined : `${why}; \`node test/e2e/setup.ts\` installs it`
}

/** Writes the configuration of a peer with an empty cache below `folder`. */
export function planPeer(name: ServerName, folder: string, upstreamUrl: string): Promise<PlannedServer> {
  if (name === 'static') return planStatic(folder)
  return name === 'stock' ? planStock(folder, upstreamUrl) : planEntrepot(folder, upstreamUrl)
}

async function planStock(folder: string, upstreamUrl: string): Promise<PlannedServer> {
  const port = await freePort()
  const storage = join(folder, 'storage')
  await mkdir(storage, { recursive: true })
  const file = join(folder, 'config.yml')
  // The shape of its own proxy example: file system storage, the access log on, descriptors cached in memory.
  const configuration = {
    version: 0.1,
    log: { level: 'info' },
    storage: { filesystem: { rootdirectory: storage }, cache: { blobdescriptor: 'inmemory' } },
    http: { addr: `${HOST}:${port}` },
    proxy: { remoteurl: upstreamUrl },
  }
  await writeFile(file, stringify(configuration))
  return plan(folder, port, labProgram('registry'), ['serve', file])
}

async function planEntrepot(folder: string, upstreamUrl: string): Promise<PlannedServer> {
  const port = await freePort()
  const admin = await freePort()
  const upstreams = join(folder, 'upstreams.d')
  await mkdir(upstreams, { recursive: true })
  await writeFile(join(upstreams, 'bench.test.yaml'), stringify({ name: 'bench.test', url: upstreamUrl }))
  // Every default, but addresses of its own and an end without the wait that a load balancer needs.
  const configuration = {
    listen: [{ address: `${HOST}:${port}`, default: 'bench.test' }],
    admin: { address: `${HOST}:${admin}` },
    data: join(folder, 'data'),
    upstreams,
    drain: { delay: '0s', timeout: '2s' },
  }
  const file = join(folder, 'entrepot.yaml')
  await writeFile(file, stringify(configuration))
  return plan(folder, port, process.execPath, [ENTREPOT, 'serve', '--config', file])
}

/** nginx serving the files of `folder`/files as fast as it can: sendfile, no log, one process for usage to be read from. */
async function planStatic(folder: string): Promise<PlannedServer> {
  const port = await freePort()
  await mkdir(join(folder, 'files', 'v2'), { recursive: true })
  await writeFile(join(folder, 'files', 'v2', 'index.html'), '{}')
  const file = join(folder, 'nginx.conf')
  const text = `
    daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
    events { worker_connections 1024; }
    http {
      access_log off; sendfile on; keepalive_requests 1000000; open_file_cache max=100;
      server { listen ${HOST}:${port}; root ${folder}/files; }
    }`
  await writeFile(file, text)
  return plan(folder, port, 'nginx', ['-p', folder, '-c', file])
}

function plan(folder: string, port: number, program: string, args: readonly string[]): PlannedServer {
  return {
    address: { host: HOST, port },
    command: {
      program,
      args,
      cwd: folder,
      logFile: join(folder, 'output.log'),
      probe: `http://${HOST}:${port}/v2/`,
      timeoutMs: START_TIMEOUT_MS,
    },
  }
}
