// Real clients log in to the gateway as their users do, and pull; a wrong password and an upstream that the user may not
// use are told in the client's own words. Run as root: containerd and dockerd need it.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { acceptAnything, loadContent, type Content } from './content.ts'
import { type Gateway, startGateway } from './gateway.ts'
import { labProgram, missingProgram, run, runAny, startServer, temporaryFolder, type RunOptions } from './lab.ts'
import { startPlainRegistry } from './upstreams.ts'

const USER = 'dev'
const PASSWORD = 'canary-login: päss'
const WRONG = 'canary-guess'
/** Where the real upstream would be the last resort: refused at once, and nothing leaves loopback. */
const NOBODY = '127.0.0.1:1'

/** How a client is told who it is and what to pull, in a folder of its own. */
interface Session extends AsyncDisposable {
  /** Pulls with that password; undefined: without one. What it printed, and whether it got the image. */
  readonly pull: (reference: Reference, password: string | undefined) => Promise<{ ok: boolean; said: string }>
}

interface Reference {
  readonly upstream: string
  readonly repository: string
  readonly tag: string
}

interface LoginClient {
  readonly name: string
  readonly programs: readonly string[]
  /** What a client prints of our message when it is refused; the oldest print the status alone. */
  readonly tells: 'the rule' | 'the status'
  /** Likewise at a wrong password. */
  readonly tellsLogin: 'our message' | 'the status'
  readonly open: (folder: string, gateway: Gateway) => Promise<Session>
}

const LOOPBACK_ONLY = {
  HTTP_PROXY: `http://${NOBODY}`,
  HTTPS_PROXY: `http://${NOBODY}`,
  NO_PROXY: '127.0.0.1,localhost',
}

function homeAt(folder: string): RunOptions {
  return { cwd: folder, env: { ...LOOPBACK_ONLY, HOME: folder, XDG_RUNTIME_DIR: folder, DOCKER_CONFIG: folder } }
}

function nameAt({ all }: Gateway, { upstream, repository, tag }: Reference): string {
  return `${all}/${upstream}/${repository}:${tag}`
}

type Step = readonly [program: string, args: readonly string[], input?: string | undefined]

/** A client without a daemon: the steps run in a fresh folder, the first that fails ends it. */
function commands(
  steps: (
    work: string,
    gateway: Gateway,
    reference: Reference,
    password: string | undefined,
  ) => Promise<readonly Step[]>,
): LoginClient['open'] {
  return async (folder, gateway) => {
    let pulls = 0
    return {
      pull: async (reference, password) => {
        const work = join(folder, String(pulls++))
        await mkdir(work, { recursive: true })
        return runSteps(await steps(work, gateway, reference, password), homeAt(work))
      },
      [Symbol.asyncDispose]: async () => undefined,
    }
  }
}

async function runSteps(steps: readonly Step[], options: RunOptions): Promise<{ ok: boolean; said: string }> {
  let said = ''
  for (const [program, args, input = ''] of steps) {
    const ran = await runAny(program, args, { ...options, input, timeoutMs: 120_000 })
    said += ran.stdout + ran.stderr
    if (ran.code !== 0) return { ok: false, said }
  }
  return { ok: true, said }
}

function ifGiven(password: string | undefined, ...steps: readonly Step[]): readonly Step[] {
  return password === undefined ? [] : steps
}

const CRANE = labProgram('crane')
const ORAS = labProgram('oras')

async function answersUnix(socket: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const connection = createConnection(socket, () => {
      connection.destroy()
      resolve(true)
    })
    connection.on('error', reject)
  })
}

async function openDocker(folder: string, gateway: Gateway): Promise<Session> {
  const socket = join(folder, 'd.sock')
  const configuration = join(folder, 'daemon.json')
  const own = {
    'data-root': join(folder, 'data'),
    'exec-root': join(folder, 'exec'),
    pidfile: join(folder, 'docker.pid'),
  }
  await writeFile(
    configuration,
    JSON.stringify({ ...own, hosts: [`unix://${socket}`], iptables: false, bridge: 'none' }),
  )
  const server = await startServer('/usr/sbin/dockerd', ['--config-file', configuration], {
    env: { ...LOOPBACK_ONLY, HOME: folder, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    ready: () => answersUnix(socket),
    timeoutMs: 60_000,
  })
  const docker = (args: readonly string[], input?: string): Step => [
    '/usr/bin/docker',
    ['-H', `unix://${socket}`, ...args],
    input,
  ]
  return {
    pull: async (reference, password) => {
      await runSteps([docker(['logout', gateway.all]), docker(['image', 'prune', '-a', '-f'])], homeAt(folder))
      const login = ifGiven(password, docker(['login', '-u', USER, '--password-stdin', gateway.all], password))
      return runSteps([...login, docker(['pull', nameAt(gateway, reference)])], homeAt(folder))
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
}

/** `ctr --user` with the explicit name, or a header in hosts.toml with the upstream's own name. */
function openContainerd(generation: 1 | 2, way: '--user' | 'hosts.toml'): LoginClient['open'] {
  const program = generation === 1 ? '/usr/bin/containerd' : labProgram('containerd')
  const ctr = generation === 1 ? '/usr/bin/ctr' : labProgram('ctr')
  return async (folder, gateway) => {
    const socket = join(folder, 'c.sock')
    const configuration = join(folder, 'config.toml')
    const lines = [
      `version = ${generation === 1 ? 2 : 3}`,
      `root = "${folder}/root"`,
      `state = "${folder}/state"`,
      ...(generation === 1 ? [] : [`temp = "${folder}"`]),
      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]',
      `[grpc]\n  address = "${socket}"`,
    ]
    await writeFile(configuration, lines.join('\n'))
    const server = await startServer(program, ['--config', configuration, '--log-level', 'warn'], {
      env: { ...LOOPBACK_ONLY, PATH: `${dirname(program)}:${process.env['PATH'] ?? ''}`, HOME: folder },
      ready: () => answersUnix(socket),
    })
    const hosts = join(folder, 'certs.d')
    return {
      pull: async (reference, password) => {
        const { upstream, repository, tag } = reference
        const isHosts = way === 'hosts.toml'
        const name = isHosts ? `${upstream}/${repository}:${tag}` : nameAt(gateway, reference)
        await runAny(ctr, ['-a', socket, 'images', 'rm', '--sync', name], homeAt(folder))
        if (isHosts) await writeHosts(hosts, upstream, gateway, password)
        const user = isHosts || password === undefined ? [] : ['--user', `${USER}:${password}`]
        const flags = isHosts ? ['--hosts-dir', hosts] : ['--plain-http']
        return runSteps(
          [[ctr, ['-a', socket, 'images', 'pull', ...flags, ...user, '--platform', 'linux/amd64', name]]],
          homeAt(folder),
        )
      },
      [Symbol.asyncDispose]: () => server.stop(),
    }
  }
}

async function writeHosts(
  folder: string,
  upstream: string,
  { all }: Gateway,
  password: string | undefined,
): Promise<void> {
  const header =
    password === undefined
      ? ''
      : `  [host."http://${all}".header]\n    authorization = "Basic ${Buffer.from(`${USER}:${password}`).toString('base64')}"\n`
  await mkdir(join(folder, upstream), { recursive: true })
  const text = `server = "http://${all}"\n\n[host."http://${all}"]\n  capabilities = ["pull", "resolve"]\n${header}`
  await writeFile(join(folder, upstream, 'hosts.toml'), text)
}

const CLIENTS: readonly LoginClient[] = [
  {
    name: 'docker login (dockerd 20.10)',
    programs: ['/usr/sbin/dockerd', '/usr/bin/docker'],
    tells: 'the rule',
    tellsLogin: 'the status',
    open: openDocker,
  },
  {
    name: 'ctr --user (containerd 1.6)',
    programs: ['/usr/bin/containerd', '/usr/bin/ctr'],
    tells: 'the status',
    tellsLogin: 'the status',
    open: openContainerd(1, '--user'),
  },
  {
    name: 'ctr --user (containerd 2)',
    programs: [labProgram('containerd'), labProgram('ctr')],
    tells: 'the rule',
    tellsLogin: 'the status',
    open: openContainerd(2, '--user'),
  },
  {
    name: 'a header in hosts.toml (containerd 2)',
    programs: [labProgram('containerd'), labProgram('ctr')],
    tells: 'the rule',
    tellsLogin: 'the status',
    open: openContainerd(2, 'hosts.toml'),
  },
  {
    name: 'podman login',
    programs: ['podman'],
    tells: 'the rule',
    tellsLogin: 'the status',
    open: commands(async (work, gateway, reference, password) => {
      const flags = ['--root', join(work, 'root'), '--runroot', join(work, 'run'), '--storage-driver', 'overlay']
      const podman = (args: readonly string[], input?: string): Step => [
        'podman',
        [...flags, '--events-backend', 'none', ...args],
        input,
      ]
      const authfile = ['--authfile', join(work, 'auth.json')]
      await writeFile(join(work, 'auth.json'), '{}')
      const policy = await acceptAnything(work)
      return [
        ...ifGiven(
          password,
          podman(['login', ...authfile, '--tls-verify=false', '-u', USER, '--password-stdin', gateway.all], password),
        ),
        podman([
          'pull',
          '-q',
          ...authfile,
          '--tls-verify=false',
          '--signature-policy',
          policy,
          nameAt(gateway, reference),
        ]),
      ]
    }),
  },
  {
    name: 'crane auth login',
    programs: [CRANE],
    tells: 'the rule',
    tellsLogin: 'our message',
    open: commands(async (_work, gateway, reference, password) => [
      ...ifGiven(password, [
        CRANE,
        ['auth', 'login', '--insecure', '-u', USER, '--password-stdin', gateway.all],
        password,
      ]),
      [CRANE, ['pull', '--insecure', '--format=oci', nameAt(gateway, reference), 'layout']],
    ]),
  },
  {
    name: 'skopeo --src-creds',
    programs: ['skopeo'],
    tells: 'the rule',
    tellsLogin: 'our message',
    open: commands(async (work, gateway, reference, password) => {
      const creds = password === undefined ? [] : ['--src-creds', `${USER}:${password}`]
      const policy = ['--policy', await acceptAnything(work)]
      const source = `docker://${nameAt(gateway, reference)}`
      return [['skopeo', ['copy', ...policy, '--all', '--src-tls-verify=false', ...creds, source, 'dir:copy']]]
    }),
  },
  {
    name: 'oras login',
    programs: [ORAS],
    tells: 'the rule',
    tellsLogin: 'our message',
    open: commands(async (_work, gateway, reference, password) => [
      ...ifGiven(password, [ORAS, ['login', '--plain-http', '-u', USER, '--password-stdin', gateway.all], password]),
      [ORAS, ['copy', '--from-plain-http', '--to-oci-layout', nameAt(gateway, reference), 'layout:1']],
    ]),
  },
]

interface World extends AsyncDisposable {
  readonly content: Content
  readonly gateway: Gateway
}

async function startWorld(): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const content = await loadContent()
  const { path } = stack.use(await temporaryFolder())
  const hub = stack.use(await startPlainRegistry(`${path}/hub`, content.storage('docker.io')))
  const quay = stack.use(await startPlainRegistry(`${path}/quay`, content.storage('quay.io')))
  const htpasswd = join(path, 'htpasswd')
  const others = await run('htpasswd', ['-nbBC', '5', 'ci', 'another'])
  await writeFile(htpasswd, `${await run('htpasswd', ['-nbBC', '10', USER, PASSWORD])}${others}`)
  const gateway = await startGateway({
    folder: `${path}/gateway`,
    upstreams: [
      { name: 'docker.io', url: hub.url, deny: ['private/**'] },
      { name: 'quay.io', url: quay.url, clients: { users: ['ci'] } },
    ],
    more: { clients: { htpasswd } },
  })
  stack.use(gateway)
  const owned = stack.move()
  return { content, gateway, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

describe('logging in', () => {
  let world: World
  before(async () => {
    world = await startWorld()
  })
  after(async () => world?.[Symbol.asyncDispose]())

  for (const client of CLIENTS) {
    const reason = client.programs.map(missingProgram).find((missing) => missing !== undefined)
    test(client.name, { ...(reason !== undefined && { skip: reason }), timeout: 300_000 }, async (t) => {
      const { gateway } = world
      await using folder = await temporaryFolder()
      await using session = await client.open(folder.path, gateway)
      const app = { upstream: 'docker.io', repository: 'library/app', tag: '1' }

      const nobody = await session.pull(app, undefined)
      assert.equal(nobody.ok, false, 'a pull without a password')

      const wrong = await session.pull(app, WRONG)
      assert.equal(wrong.ok, false, 'a pull with a wrong password')
      t.diagnostic(`wrong password: ${last(wrong.said)}`)
      assert.match(
        wrong.said,
        client.tellsLogin === 'our message'
          ? /wrong user or password/
          : /401 Unauthorized|invalid username|authorization failed/,
      )

      const right = await session.pull(app, PASSWORD)
      assert.equal(right.ok, true, right.said)

      const quay = { upstream: 'quay.io', repository: 'acme/signed', tag: '1' }
      const foreign = await session.pull(quay, PASSWORD)
      assert.equal(foreign.ok, false, 'a pull from an upstream that is for others')
      t.diagnostic(`another user's upstream: ${last(foreign.said)}`)
      const rule = /user dev may not pull from quay\.io here \(clients\.users in upstreams\.d\/quay\.io\.yaml\)/
      assert.match(foreign.said, client.tells === 'the rule' ? rule : /403|denied|forbidden/i)

      const secret = await session.pull({ upstream: 'docker.io', repository: 'private/secret', tag: '1' }, PASSWORD)
      assert.equal(secret.ok, false, 'a pull of a repository that the rules deny')
      t.diagnostic(`a denied repository: ${last(secret.said)}`)
      const deny = /docker\.io\/private\/secret \(deny in upstreams\.d\/docker\.io\.yaml\)/
      assert.match(secret.said, client.tells === 'the rule' ? deny : /403|denied|forbidden/i)
    })
  }

  test('no password is in the log, and the user is', () => {
    const text = world.gateway.lines.join('\n')
    const forms = [PASSWORD, WRONG].flatMap((secret) => [secret, Buffer.from(`${USER}:${secret}`).toString('base64')])
    for (const form of forms) assert.ok(!text.includes(form))
    assert.match(text, /"principal":"dev"/)
  })
})

function last(said: string): string {
  return said.trim().split('\n').at(-1)?.slice(0, 300) ?? ''
}
