// Real clients, each as its users configure it. A client is opened with a private state folder, pulls through a gateway,
// and tells the digests it got: manifests and, where the client shows them, configuration and layers.

import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import { acceptAnything } from './content.ts'
import { labProgram, missingProgram, run, type RunOptions, type Server, startServer } from './lab.ts'

/** Where a gateway (or a registry that stands in for one) is reached. Plain HTTP on loopback, host:port. */
export interface GatewayAddress {
  /** The listener that serves every upstream: by `ns` and by prefix. */
  readonly all: string
  /** The port of one upstream, by upstream name. */
  readonly ports: Readonly<Record<string, string>>
}

/** How a request names its upstream. */
export type RouteKind = 'ns' | 'port' | 'inner prefix' | 'outer prefix' | 'ns + inner prefix' | 'ns + port'

export interface PullName {
  readonly registry: string
  readonly repository: string
  readonly tag: string
}

export interface ClientSession extends AsyncDisposable {
  /** Pulls with nothing cached on this side. Gives the digests it got, sorted, no duplicates. */
  readonly pull: (name: PullName) => Promise<readonly string[]>
}

export interface Client {
  /** For the table: the program, its version line's short form, and how it is configured. */
  readonly name: string
  readonly route: RouteKind
  /** Programs it cannot do without. */
  readonly programs: readonly string[]
  /** What the client can pull: all upstreams, docker.io alone, or one kind of content. */
  readonly pulls: 'images' | 'docker.io images' | 'charts' | 'signed images'
  readonly open: (folder: string, gateway: GatewayAddress) => Promise<ClientSession>
}

/** Why a client cannot be had on this machine, or undefined. */
export function missingFor(client: Client): string | undefined {
  for (const program of client.programs) {
    const reason = missingProgram(program)
    if (reason !== undefined) return reason
  }
  return undefined
}

export interface ClientsOptions {
  /** Read when cosign runs: the key is made with the content. */
  readonly cosignPublicKey: () => string
}

/** Every client in every configuration that the matrix has. */
export function allClients(options: ClientsOptions): readonly Client[] {
  const explicit = (['inner prefix', 'port'] as const).flatMap((route) => [
    crane(route),
    skopeo(route),
    oras(route),
    regctl(route),
    helm(route),
    cosign(route, options.cosignPublicKey),
  ])
  return [
    ...explicit,
    regctlMirror(),
    podman('inner prefix'),
    podman('port'),
    buildah('inner prefix'),
    containerd({ generation: 1, hosts: 'per registry', route: 'ns' }),
    containerd({ generation: 1, hosts: '_default', route: 'ns' }),
    containerd({ generation: 1, hosts: 'per registry', route: 'outer prefix' }),
    containerd({ generation: 2, hosts: 'per registry', route: 'ns' }),
    containerd({ generation: 2, hosts: '_default', route: 'ns' }),
    containerd({ generation: 2, hosts: 'per registry', route: 'ns + inner prefix' }),
    containerd({ generation: 2, hosts: 'per registry', route: 'ns + port', local: true }),
    cri(),
    dockerMirror(),
    dockerExplicit(),
  ]
}

/** Stands where a client would name the real upstream as its last resort: refused at once, and nothing leaves loopback. */
const NOBODY = '127.0.0.1:1'

const UPSTREAM_NAMES = ['docker.io', 'ghcr.io', 'quay.io'] as const

/** `host/repository` of an image at the gateway for clients that are given an explicit address. */
function explicitName(gateway: GatewayAddress, route: RouteKind, name: PullName): string {
  if (route !== 'port') return `${gateway.all}/${name.registry}/${name.repository}`
  return `${portOf(gateway, name.registry)}/${name.repository}`
}

function portOf(gateway: GatewayAddress, registry: string): string {
  const address = gateway.ports[registry]
  if (address === undefined) throw new Error(`the gateway has no port for ${registry}`)
  return address
}

function sortedDigests(text: string): readonly string[] {
  return [...new Set(text.match(/sha256:[0-9a-f]{64}/g) ?? [])].toSorted()
}

/** Digests of every file in an OCI layout, each checked against its bytes. */
async function layoutDigests(layout: string): Promise<readonly string[]> {
  const digests: string[] = []
  for (const hex of await readdir(join(layout, 'blobs', 'sha256'))) {
    const actual = createHash('sha256')
      .update(await readFile(join(layout, 'blobs', 'sha256', hex)))
      .digest('hex')
    if (actual !== hex) throw new Error(`${layout}: sha256:${hex} holds other bytes`)
    digests.push(`sha256:${hex}`)
  }
  return digests.toSorted()
}

/** A client without a daemon: each pull gets an empty folder. */
function commandClient(
  about: Omit<Client, 'open'>,
  pull: (work: string, gateway: GatewayAddress, name: PullName) => Promise<readonly string[]>,
): Client {
  return {
    ...about,
    open: async (folder, gateway) => ({
      pull: async (name) => {
        const work = join(folder, 'pull')
        await rm(work, { recursive: true, force: true })
        await mkdir(work, { recursive: true })
        return pull(work, gateway, name)
      },
      [Symbol.asyncDispose]: async () => undefined,
    }),
  }
}

/** Anything that would leave loopback meets a proxy that refuses it. */
const LOOPBACK_ONLY = {
  HTTP_PROXY: `http://${NOBODY}`,
  HTTPS_PROXY: `http://${NOBODY}`,
  NO_PROXY: '127.0.0.1,localhost,.test',
} as const

function homeAt(work: string): RunOptions {
  return { cwd: work, env: { ...LOOPBACK_ONLY, HOME: work, XDG_RUNTIME_DIR: work, DOCKER_CONFIG: work } }
}

function crane(route: RouteKind): Client {
  const program = labProgram('crane')
  return commandClient({ name: 'crane', route, programs: [program], pulls: 'images' }, async (work, gateway, name) => {
    const reference = `${explicitName(gateway, route, name)}:${name.tag}`
    const digest = (await run(program, ['digest', '--insecure', reference], homeAt(work))).trim()
    await run(program, ['pull', '--insecure', '--format=oci', reference, 'layout'], homeAt(work))
    return [...new Set([digest, ...(await layoutDigests(join(work, 'layout')))])].toSorted()
  })
}

function skopeo(route: RouteKind): Client {
  return commandClient(
    { name: 'skopeo', route, programs: ['skopeo'], pulls: 'images' },
    async (work, gateway, name) => {
      const source = `docker://${explicitName(gateway, route, name)}:${name.tag}`
      const policy = await acceptAnything(work)
      // A `dir:` copy rewrites an index, so the index itself is read raw.
      const raw = await run(
        'skopeo',
        ['inspect', '--policy', policy, '--raw', '--tls-verify=false', source],
        homeAt(work),
      )
      const top = `sha256:${createHash('sha256').update(raw).digest('hex')}`
      await run(
        'skopeo',
        ['copy', '--policy', policy, '--all', '--src-tls-verify=false', source, `dir:${work}/copy`],
        homeAt(work),
      )
      return [...new Set([top, ...(await directoryDigests(join(work, 'copy')))])].toSorted()
    },
  )
}

/** Digests of a `dir:` copy, computed from the bytes: manifests are named `*manifest.json`, blobs by their hash. */
async function directoryDigests(folder: string): Promise<readonly string[]> {
  const digests = new Set<string>()
  for (const file of await readdir(folder)) {
    if (file === 'version') continue
    const hex = createHash('sha256')
      .update(await readFile(join(folder, file)))
      .digest('hex')
    if (/^[0-9a-f]{64}$/.test(file) && file !== hex) throw new Error(`${folder}: ${file} holds other bytes`)
    digests.add(`sha256:${hex}`)
  }
  return [...digests].toSorted()
}

function oras(route: RouteKind): Client {
  const program = labProgram('oras')
  return commandClient({ name: 'oras', route, programs: [program], pulls: 'images' }, async (work, gateway, name) => {
    const reference = `${explicitName(gateway, route, name)}:${name.tag}`
    await run(
      program,
      ['copy', '--recursive', '--from-plain-http', '--to-oci-layout', reference, 'layout:1'],
      homeAt(work),
    )
    return layoutDigests(join(work, 'layout'))
  })
}

function regctl(route: RouteKind): Client {
  const program = labProgram('regctl')
  return commandClient({ name: 'regctl', route, programs: [program], pulls: 'images' }, async (work, gateway, name) => {
    const address = explicitName(gateway, route, name)
    await run(program, ['registry', 'set', '--tls', 'disabled', address.slice(0, address.indexOf('/'))], homeAt(work))
    await run(program, ['image', 'copy', '--referrers', `${address}:${name.tag}`, 'ocidir://layout:1'], homeAt(work))
    const own = await fallbackTagDigests(join(work, 'layout'))
    return (await layoutDigests(join(work, 'layout'))).filter((digest) => !own.includes(digest))
  })
}

/** Referrer indexes that regctl writes into a layout itself, entries in the order they came: not the registry's bytes. */
async function fallbackTagDigests(layout: string): Promise<readonly string[]> {
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as {
    readonly manifests: readonly { readonly digest: string; readonly annotations?: Readonly<Record<string, string>> }[]
  }
  return index.manifests
    .filter((one) => one.annotations?.['org.opencontainers.image.ref.name']?.startsWith('sha256-') === true)
    .map((one) => one.digest)
}

/** regctl with the gateway as a mirror: it names the upstream by `ns`. */
function regctlMirror(): Client {
  const program = labProgram('regctl')
  const about = { name: 'regctl mirror', route: 'ns', programs: [program], pulls: 'images' } as const
  return commandClient(about, async (work, gateway, name) => {
    const unreachable = { tls: 'disabled', mirrors: [gateway.all] }
    const hosts = {
      ...Object.fromEntries(UPSTREAM_NAMES.map((upstream) => [upstream, unreachable])),
      [gateway.all]: { tls: 'disabled' },
    }
    await mkdir(join(work, '.regctl'))
    await writeFile(join(work, '.regctl', 'config.json'), JSON.stringify({ hosts }))
    await run(
      program,
      ['image', 'copy', `${name.registry}/${name.repository}:${name.tag}`, 'ocidir://layout:1'],
      homeAt(work),
    )
    return layoutDigests(join(work, 'layout'))
  })
}

function helm(route: RouteKind): Client {
  const program = labProgram('helm')
  return commandClient({ name: 'helm', route, programs: [program], pulls: 'charts' }, async (work, gateway, name) => {
    const chart = `oci://${explicitName(gateway, route, name)}`
    const ran = await run(
      'sh',
      ['-c', 'exec "$0" "$@" 2>&1', program, 'pull', chart, '--version', name.tag, '--plain-http'],
      {
        ...homeAt(work),
      },
    )
    const file = (await readdir(work)).find((one) => one.endsWith('.tgz'))
    if (file === undefined) throw new Error(`helm pull ${chart}: no chart`)
    const layer = createHash('sha256')
      .update(await readFile(join(work, file)))
      .digest('hex')
    return [...new Set([...sortedDigests(ran), `sha256:${layer}`])].toSorted()
  })
}

function cosign(route: RouteKind, publicKey: () => string): Client {
  const program = labProgram('cosign')
  const about = { name: 'cosign verify', route, programs: [program], pulls: 'signed images' } as const
  return commandClient(about, async (work, gateway, name) => {
    const printed = await run(
      program,
      [
        'verify',
        '--key',
        publicKey(),
        '--insecure-ignore-tlog=true',
        '--allow-insecure-registry',
        '--allow-http-registry',
        '--output',
        'json',
        `${explicitName(gateway, route, name)}:${name.tag}`,
      ],
      homeAt(work),
    )
    return sortedDigests(printed)
  })
}

/** registries.conf with the gateway as the mirror of each upstream; the upstream itself would be the fallback. */
function registriesConf(gateway: GatewayAddress, route: RouteKind): string {
  return UPSTREAM_NAMES.map((upstream) => {
    const mirror = route === 'port' ? portOf(gateway, upstream) : `${gateway.all}/${upstream}`
    const own = `[[registry]]\nprefix = "${upstream}"\nlocation = "${NOBODY}"\n`
    return `${own}[[registry.mirror]]\nlocation = "${mirror}"\ninsecure = true\n`
  }).join('\n')
}

async function containersHome(work: string, gateway: GatewayAddress, route: RouteKind): Promise<RunOptions> {
  const configuration = join(work, 'registries.conf')
  await writeFile(configuration, registriesConf(gateway, route))
  await writeFile(join(work, 'config.json'), '{}')
  const home = homeAt(work)
  return { ...home, env: { ...home.env, CONTAINERS_REGISTRIES_CONF: configuration } }
}

function storageFlags(work: string): readonly string[] {
  return ['--root', join(work, 'root'), '--runroot', join(work, 'run'), '--storage-driver', 'overlay']
}

function podman(route: RouteKind): Client {
  return commandClient(
    { name: 'podman', route, programs: ['podman'], pulls: 'images' },
    async (work, gateway, name) => {
      const home = await containersHome(work, gateway, route)
      const reference = `${name.registry}/${name.repository}:${name.tag}`
      const flags = [...storageFlags(work), '--events-backend', 'none']
      await run('podman', [...flags, 'pull', '-q', '--signature-policy', await acceptAnything(work), reference], home)
      const format = '{{.Id}} {{.Digest}} {{.RepoDigests}} {{.RootFS.Layers}}'
      const shown = await run('podman', [...flags, 'image', 'inspect', '--format', format, reference], home)
      return sortedDigests(`sha256:${shown}`)
    },
  )
}

function buildah(route: RouteKind): Client {
  const about = { name: 'buildah FROM', route, programs: ['buildah'], pulls: 'images' } as const
  return commandClient(about, async (work, gateway, name) => {
    const home = await containersHome(work, gateway, route)
    const reference = `${name.registry}/${name.repository}:${name.tag}`
    const flags = storageFlags(work)
    await writeFile(join(work, 'Containerfile'), `FROM ${reference}\nCOPY Containerfile /Containerfile\n`)
    const options = { ...home, env: { ...home.env, BUILDAH_ISOLATION: 'chroot' } }
    const policy = ['--signature-policy', await acceptAnything(work)]
    await run('buildah', [...flags, 'bud', ...policy, '-t', 'localhost/built', work], options)
    const shown = await run('buildah', [...flags, 'images', '--no-trunc', '--digests', '--json', reference], options)
    return sortedDigests(shown.replaceAll(/"id": "([0-9a-f]{64})"/g, '"id": "sha256:$1"'))
  })
}

interface ContainerdOptions {
  /** 1 is Debian's 1.6, 2 the built 2.x. */
  readonly generation: 1 | 2
  readonly hosts: 'per registry' | '_default'
  readonly route: 'ns' | 'outer prefix' | 'ns + inner prefix' | 'ns + port'
  /** `ctr images pull --local`, the way that does not go through the transfer service. */
  readonly local?: boolean
}

/** Writes `hosts.toml` files below `folder`; the fallback is the gateway itself, so that nothing else is ever dialled. */
async function writeHostsToml(
  folder: string,
  gateway: GatewayAddress,
  options: Pick<ContainerdOptions, 'hosts' | 'route'>,
): Promise<void> {
  const writeOne = async (name: string, text: string): Promise<void> => {
    await mkdir(join(folder, name), { recursive: true })
    await writeFile(join(folder, name, 'hosts.toml'), text)
  }
  if (options.hosts === '_default') {
    // A file with `server` alone would do for 2.x; 1.6 refuses it ("invalid `host` tree") and goes to the registry itself.
    const table = `[host."http://${gateway.all}"]\n  capabilities = ["pull", "resolve"]\n`
    return writeOne('_default', `server = "http://${NOBODY}"\n\n${table}`)
  }
  for (const upstream of UPSTREAM_NAMES) {
    const capabilities = '  capabilities = ["pull", "resolve"]\n'
    const hosts = {
      ns: `[host."http://${gateway.all}"]\n${capabilities}`,
      'ns + port': `[host."http://${gateway.ports[upstream]}"]\n${capabilities}`,
      'outer prefix': `[host."http://${gateway.all}/${upstream}"]\n${capabilities}`,
      'ns + inner prefix': `[host."http://${gateway.all}/v2/${upstream}"]\n${capabilities}  override_path = true\n`,
    }
    await writeOne(upstream, `server = "http://${NOBODY}"\n\n${hosts[options.route]}`)
  }
}

/** Plugins that a containerd which only pulls by `ctr` does without. */
export const CRI_PLUGINS = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime',
] as const

/** The command that runs `command` with another /etc/hosts, in a mount namespace of its own. Needs root. */
export function withHosts(hostsFile: string, command: readonly [string, ...string[]]): readonly [string, ...string[]] {
  const script = 'mount --bind "$0" /etc/hosts && exec "$@"'
  return ['unshare', '--mount', 'sh', '-c', script, hostsFile, ...command]
}

async function answersUnix(socket: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const connection = createConnection(socket, () => {
      connection.destroy()
      resolve(true)
    })
    connection.on('error', reject)
  })
}

export interface Containerd {
  readonly server: Server
  readonly socket: string
  readonly ctr: string
  readonly hostsFolder: string
}

/** Starts a containerd with root, state and socket of its own below `folder`. */
export async function startContainerd(
  folder: string,
  generation: 1 | 2,
  options: {
    readonly disabled?: readonly string[]
    readonly plugins?: readonly string[]
    /** Stands for /etc/hosts, for it alone. */
    readonly hostsFile?: string
  },
): Promise<Containerd> {
  const program = generation === 1 ? '/usr/bin/containerd' : labProgram('containerd')
  const socket = join(folder, 'c.sock')
  const hostsFolder = join(folder, 'certs.d')
  await mkdir(hostsFolder, { recursive: true })
  const configuration = join(folder, 'config.toml')
  await writeFile(
    configuration,
    [
      `version = ${generation === 1 ? 2 : 3}`,
      `root = "${folder}/root"`,
      `state = "${folder}/state"`,
      ...(generation === 1 ? [] : [`temp = "${folder}"`]),
      `disabled_plugins = ${JSON.stringify(options.disabled ?? [])}`,
      '[grpc]',
      `  address = "${socket}"`,
      ...(options.plugins ?? []),
    ].join('\n'),
  )
  const command = [program, '--config', configuration, '--log-level', 'warn'] as const
  const [started, ...args] = options.hostsFile === undefined ? command : withHosts(options.hostsFile, command)
  const server = await startServer(started, args, {
    env: { ...LOOPBACK_ONLY, PATH: `${dirname(program)}:${process.env['PATH'] ?? ''}`, HOME: folder },
    ready: () => answersUnix(socket),
  })
  return { server, socket, hostsFolder, ctr: generation === 1 ? '/usr/bin/ctr' : labProgram('ctr') }
}

function containerd(options: ContainerdOptions): Client {
  const { generation, hosts, route, local } = options
  const programs =
    generation === 1 ? ['/usr/bin/containerd', '/usr/bin/ctr'] : [labProgram('containerd'), labProgram('ctr')]
  const name = `containerd ${generation === 1 ? '1.6' : '2'} ${hosts}${local === true ? ' --local' : ''}`
  return {
    name,
    route,
    programs,
    pulls: 'images',
    open: async (folder, gateway) => {
      const daemon = await startContainerd(folder, generation, {
        disabled: generation === 1 ? CRI_PLUGINS.slice(0, 1) : CRI_PLUGINS,
      })
      await writeHostsToml(daemon.hostsFolder, gateway, { hosts, route })
      const ctr = (args: readonly string[]): Promise<string> =>
        run(daemon.ctr, ['-a', daemon.socket, ...args], homeAt(folder))
      return {
        pull: async ({ registry, repository, tag }) => {
          for (const image of (await ctr(['images', 'ls', '-q'])).split('\n').filter((line) => line !== '')) {
            await ctr(['images', 'rm', '--sync', image])
          }
          const flags = ['--hosts-dir', daemon.hostsFolder, ...(local === true ? ['--local'] : [])]
          await ctr(['images', 'pull', ...flags, '--platform', 'linux/amd64', `${registry}/${repository}:${tag}`])
          return sortedDigests(`${await ctr(['content', 'ls', '-q'])} ${await ctr(['images', 'ls'])}`)
        },
        [Symbol.asyncDispose]: () => daemon.server.stop(),
      }
    },
  }
}

/** The way a kubelet takes: crictl asks containerd's CRI plugin, which reads hosts.toml from its `config_path`. */
function cri(): Client {
  const crictl = labProgram('crictl')
  return {
    name: 'CRI (crictl, containerd 2)',
    route: 'ns',
    programs: [crictl, labProgram('containerd')],
    pulls: 'images',
    open: async (folder, gateway) => {
      const daemon = await startContainerd(folder, 2, {
        plugins: [
          `[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "${folder}/certs.d"`,
          `[plugins."io.containerd.transfer.v1.local"]\n  config_path = "${folder}/certs.d"`,
          `[plugins."io.containerd.cri.v1.runtime".cni]\n  bin_dirs = ["${folder}"]\n  conf_dir = "${folder}/cni"`,
          '[plugins."io.containerd.grpc.v1.cri"]\n  stream_server_port = "0"',
        ],
      })
      await writeHostsToml(daemon.hostsFolder, gateway, { hosts: 'per registry', route: 'ns' })
      const endpoint = `unix://${daemon.socket}`
      const ask = (args: readonly string[]): Promise<string> =>
        run(crictl, ['--runtime-endpoint', endpoint, '--image-endpoint', endpoint, '--timeout', '60s', ...args], {
          ...homeAt(folder),
        })
      return {
        pull: async ({ registry, repository, tag }) => {
          const reference = `${registry}/${repository}:${tag}`
          await ask(['rmi', '--all'])
          const pulled = await ask(['pull', reference])
          return sortedDigests(`${pulled} ${await ask(['inspecti', '-o', 'json', reference])}`)
        },
        [Symbol.asyncDispose]: () => daemon.server.stop(),
      }
    },
  }
}

interface Docker {
  readonly server: Server
  readonly docker: (args: readonly string[]) => Promise<string>
}

async function startDocker(folder: string, settings: Readonly<Record<string, unknown>>): Promise<Docker> {
  const socket = join(folder, 'd.sock')
  const configuration = join(folder, 'daemon.json')
  const own = {
    'data-root': join(folder, 'data'),
    'exec-root': join(folder, 'exec'),
    pidfile: join(folder, 'docker.pid'),
    hosts: [`unix://${socket}`],
    iptables: false,
    bridge: 'none',
  }
  await writeFile(configuration, JSON.stringify({ ...own, ...settings }))
  const server = await startServer('/usr/sbin/dockerd', ['--config-file', configuration], {
    // The lab's containerd 2 must not be the one that this old dockerd finds.
    env: { ...LOOPBACK_ONLY, HOME: folder, PATH: `/usr/sbin:/usr/bin:/sbin:/bin` },
    ready: () => answersUnix(socket),
    timeoutMs: 60_000,
  })
  return {
    server,
    docker: (args) => run('/usr/bin/docker', ['-H', `unix://${socket}`, ...args], homeAt(folder)),
  }
}

async function dockerPull({ docker }: Docker, reference: string): Promise<readonly string[]> {
  await docker(['image', 'prune', '-a', '-f'])
  await docker(['pull', '-q', reference])
  const format = '{{.Id}} {{.RepoDigests}} {{.RootFS.Layers}}'
  return sortedDigests(await docker(['image', 'inspect', '--format', format, reference]))
}

/** Docker's own mirror setting: docker.io alone, by a port whose upstream is docker.io. */
function dockerMirror(): Client {
  return {
    name: 'dockerd 20.10 registry-mirrors',
    route: 'port',
    programs: ['/usr/sbin/dockerd', '/usr/bin/docker'],
    pulls: 'docker.io images',
    open: async (folder, gateway) => {
      const daemon = await startDocker(folder, { 'registry-mirrors': [`http://${portOf(gateway, 'docker.io')}`] })
      return {
        pull: ({ repository, tag }) => dockerPull(daemon, `${repository}:${tag}`),
        [Symbol.asyncDispose]: () => daemon.server.stop(),
      }
    },
  }
}

function dockerExplicit(): Client {
  return {
    name: 'docker pull',
    route: 'inner prefix',
    programs: ['/usr/sbin/dockerd', '/usr/bin/docker'],
    pulls: 'images',
    open: async (folder, gateway) => {
      const daemon = await startDocker(folder, { 'insecure-registries': [gateway.all] })
      return {
        pull: (name) => dockerPull(daemon, `${explicitName(gateway, 'inner prefix', name)}:${name.tag}`),
        [Symbol.asyncDispose]: () => daemon.server.stop(),
      }
    },
  }
}
