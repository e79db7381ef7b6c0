// TLS from clients to the gateway: one listener, a certificate for each host name, chosen by SNI; and the host name is what
// names the upstream. The names are in no DNS: each client gets an /etc/hosts of its own.

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { connect } from 'node:tls'
import { type Authority, makeAuthority } from './certificates.ts'
import { CRI_PLUGINS, startContainerd, withHosts } from './clients.ts'
import { type Content, type Image, type ImageName, loadContent, type RegistryName } from './content.ts'
import { type Gateway, startGateway } from './gateway.ts'
import { labProgram, missingProgram, run, type RunOptions, temporaryFolder } from './lab.ts'
import { startPlainRegistry, type Upstream } from './upstreams.ts'

const PAIRS = [
  { registry: 'docker.io', host: 'hub.mirror.test', image: 'app' },
  { registry: 'quay.io', host: 'quay.mirror.test', image: 'signed' },
] as const satisfies readonly { registry: RegistryName; host: string; image: ImageName }[]

interface World extends AsyncDisposable {
  readonly gateway: Gateway
  readonly content: Content
  readonly authority: Authority
  readonly hostsFile: string
  readonly folder: string
  readonly port: number
  readonly stopUpstreams: () => Promise<void>
}

async function startWorld(): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const content = await loadContent()
  const { path: folder } = stack.use(await temporaryFolder())
  const certificates = join(folder, 'certificates')
  await mkdir(certificates)
  const authority = await makeAuthority(certificates)
  const tls = []
  const upstreams = []
  const running: Upstream[] = []
  for (const { registry, host } of PAIRS) {
    const upstream = stack.use(await startPlainRegistry(join(folder, registry), content.storage(registry)))
    running.push(upstream)
    const { certFile, keyFile } = await authority.issue([host])
    tls.push({ cert: certFile, key: keyFile, hosts: [host] })
    upstreams.push({ name: registry, url: upstream.url, routes: { hosts: [host] } })
  }
  const { certFile, keyFile } = await authority.issue(['127.0.0.1', 'localhost'])
  tls.push({ cert: certFile, key: keyFile })
  const gateway = stack.use(await startGateway({ folder: join(folder, 'gateway'), upstreams, tls, default: 'quay.io' }))
  const hostsFile = join(folder, 'hosts')
  await writeFile(hostsFile, `127.0.0.1 localhost ${PAIRS.map(({ host }) => host).join(' ')}\n`)
  const owned = stack.move()
  return {
    gateway,
    content,
    authority,
    hostsFile,
    folder,
    port: Number(gateway.all.split(':').at(-1)),
    stopUpstreams: async () => {
      await Promise.all(running.map((upstream) => upstream.stop()))
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

/** The names a certificate is for that the gateway shows to a client which asks for `servername`. */
function certificateFor({ port, authority }: World, servername: string, ca: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect({ host: '127.0.0.1', port, servername, ca }, () => {
    const shown = socket.getPeerX509Certificate()
    if (shown instanceof X509Certificate) resolve(shown.subjectAltName ?? '')
    else reject(new Error(`no certificate for ${servername} from ${authority.caFile}`))
    socket.destroy()
  })
  socket.on('error', reject)
  return promise
}

function clientHome(world: World, folder: string): RunOptions {
  const env = { HOME: folder, DOCKER_CONFIG: folder, SSL_CERT_FILE: world.authority.caFile }
  return { cwd: folder, env }
}

async function withNames(world: World, command: readonly [string, ...string[]], home: RunOptions): Promise<string> {
  const [program, ...args] = withHosts(world.hostsFile, command)
  return run(program, args, home)
}

/** Pulls by host name with crane, which trusts the private authority; gives the digest it was told. */
async function cranePull(world: World, host: string, { repository, tag }: Image): Promise<string> {
  await using work = await temporaryFolder()
  const home = clientHome(world, work.path)
  const reference = `${host}:${world.port}/${repository}:${tag}`
  const digest = await withNames(world, [labProgram('crane'), 'digest', reference], home)
  await withNames(world, [labProgram('crane'), 'pull', '--format=oci', reference, 'layout'], home)
  return digest.trim()
}

const unable = [labProgram('registry'), labProgram('crane'), labProgram('containerd'), '/usr/bin/unshare']
  .map((program) => missingProgram(program))
  .find((reason) => reason !== undefined)

void describe('TLS by host name', { concurrency: false, skip: unable ?? false }, () => {
  void test(
    'each name has its certificate and its upstream; crane and containerd pull',
    { timeout: 180_000 },
    async (t) => {
      await using world = await startWorld()
      const ca = await run('cat', [world.authority.caFile])
      for (const { host } of PAIRS) assert.equal(await certificateFor(world, host, ca), `DNS:${host}`)
      assert.match(await certificateFor(world, 'localhost', ca), /DNS:localhost/)
      await assert.rejects(certificateFor(world, 'other.mirror.test', ca), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })

      for (const { host, image } of PAIRS) {
        const wanted = world.content.image(image)
        assert.equal(await cranePull(world, host, wanted), wanted.digest)
        // The same repository is not there under the other name: the name alone chose the upstream.
        const other = PAIRS.find((pair) => pair.host !== host)
        assert.ok(other !== undefined)
        await assert.rejects(cranePull(world, other.host, wanted), /MANIFEST_UNKNOWN|NAME_UNKNOWN/)
        const curl = ['--silent', '--cacert', world.authority.caFile, '--resolve', `${host}:${world.port}:127.0.0.1`]
        const url = `https://${host}:${world.port}/v2/${wanted.repository}/tags/list`
        assert.match(await run('curl', [...curl, '--noproxy', '*', '--fail', url]), new RegExp(`"${wanted.tag}"`))
      }
      t.diagnostic(
        'tls: certificate by SNI for 2 names and a fallback; crane and curl pull by each name, only its upstream',
      )

      await ctrPull(world)
      t.diagnostic('tls: containerd 2 pulls by mirror with `ca` in hosts.toml, and by the name itself')

      await world.stopUpstreams()
      for (const { host, image } of PAIRS) {
        const wanted = world.content.image(image)
        assert.equal(await cranePull(world, host, wanted), wanted.digest)
      }
      t.diagnostic('tls: crane pulls the same digests by each name with the upstreams stopped')
    },
  )
})

/** containerd 2: docker.io through the mirror at one name, and the other upstream's image under the gateway's own name. */
async function ctrPull(world: World): Promise<void> {
  const folder = join(world.folder, 'containerd')
  const daemon = await startContainerd(folder, 2, { disabled: CRI_PLUGINS, hostsFile: world.hostsFile })
  await using _stopped = { [Symbol.asyncDispose]: () => daemon.server.stop() }
  const [hub, quay] = PAIRS
  const own = `${quay.host}:${world.port}`
  await writeHosts(daemon.hostsFolder, 'docker.io', `https://${hub.host}:${world.port}`, world)
  await writeHosts(daemon.hostsFolder, own, `https://${own}`, world)
  for (const [registry, name] of [
    ['docker.io', hub.image],
    [own, quay.image],
  ] as const) {
    const image = world.content.image(name)
    const reference = `${registry}/${image.repository}:${image.tag}`
    const ctr = [daemon.ctr, '-a', daemon.socket, 'images'] as const
    const flags = ['--hosts-dir', daemon.hostsFolder, '--platform', 'linux/amd64']
    await withNames(world, [...ctr, 'pull', ...flags, reference], { cwd: folder })
    assert.match(await run(daemon.ctr, ['-a', daemon.socket, 'images', 'ls']), new RegExp(image.digest))
  }
}

async function writeHosts(folder: string, name: string, address: string, { authority }: World): Promise<void> {
  await mkdir(join(folder, name), { recursive: true })
  const host = `[host."${address}"]\n  capabilities = ["pull", "resolve"]\n  ca = "${authority.caFile}"\n`
  await writeFile(join(folder, name, 'hosts.toml'), `server = "${address}"\n\n${host}`)
}
