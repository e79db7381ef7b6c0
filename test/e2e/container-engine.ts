// A dockerd of the test's own, with docker and docker-compose as its clients. It touches no firewall, no setting of the
// kernel, and no bridge but those of the networks that are made with it.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Ran, run, runAny, startServer } from './lab.ts'

/** Programs without which no container can be run here. */
export const ENGINE_PROGRAMS = ['/usr/sbin/dockerd', '/usr/bin/docker', '/usr/bin/docker-compose'] as const

/** What `docker inspect` says of a container, as far as the tests look at it. */
export interface ContainerState {
  readonly status: string
  readonly exitCode: number
  readonly health: string | undefined
}

export interface Engine extends AsyncDisposable {
  /** Runs `docker` and gives its standard output; rejects on an exit code. */
  readonly docker: (args: readonly string[], env?: Readonly<Record<string, string>>) => Promise<string>
  /** Runs `docker`, whatever its exit code. */
  readonly dockerAny: (args: readonly string[]) => Promise<Ran>
  /** Runs `docker-compose` 1.29; rejects on an exit code. */
  readonly compose: (args: readonly string[], env?: Readonly<Record<string, string>>) => Promise<string>
  readonly state: (container: string) => Promise<ContainerState>
  /** Waits until its health check says so; rejects with its log when it ends or takes a minute. */
  readonly becomesHealthy: (container: string) => Promise<void>
}

/** Starts it below `folder`, whose name has to be short for the socket's sake. */
export async function startEngine(folder: string): Promise<Engine> {
  await mkdir(folder)
  const socket = join(folder, 'd.sock')
  const configuration = join(folder, 'daemon.json')
  const settings = {
    'data-root': join(folder, 'data'),
    'exec-root': join(folder, 'exec'),
    pidfile: join(folder, 'docker.pid'),
    hosts: [`unix://${socket}`],
    iptables: false,
    'ip-forward': false,
    bridge: 'none',
  }
  await writeFile(configuration, JSON.stringify(settings))
  const client = { DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: folder, HOME: folder, DOCKER_BUILDKIT: '1' }
  const options = (env: Readonly<Record<string, string>> = {}) => ({ env: { ...client, ...env }, timeoutMs: 300_000 })
  const server = await startServer('/usr/sbin/dockerd', ['--config-file', configuration], {
    // The lab's containerd 2 must not be the one that this old dockerd finds.
    env: { HOME: folder, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    ready: async () => (await runAny('/usr/bin/docker', ['version'], options())).code === 0,
    timeoutMs: 60_000,
    graceMs: 30_000,
  })
  const docker: Engine['docker'] = (args, env) => run('/usr/bin/docker', args, options(env))
  const state = async (container: string): Promise<ContainerState> => {
    const format = '{{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{end}}'
    const [status = '', exitCode = '', health] = (await docker(['inspect', '-f', format, container])).trim().split(' ')
    return { status, exitCode: Number(exitCode), health }
  }
  const dockerAny: Engine['dockerAny'] = (args) => runAny('/usr/bin/docker', args, options())
  return {
    docker,
    dockerAny,
    compose: (args, env) => run('/usr/bin/docker-compose', args, options(env)),
    state,
    becomesHealthy: async (container) => {
      const deadline = Date.now() + 60_000
      for (;;) {
        const now = await state(container)
        if (now.health === 'healthy') return
        if (now.status !== 'running' || Date.now() > deadline) {
          const { stdout, stderr } = await dockerAny(['logs', '--tail', '40', container])
          throw new Error(`${container} is ${now.status}, ${now.health}\n${stdout}\n${stderr}`)
        }
        await delay(250)
      }
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
}
