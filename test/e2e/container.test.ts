// The container as a site runs it: built on a base of its own by two builders, run by Docker, and by compose behind a
// corporate proxy with a private CA and credentials as secrets. The base is not the Dockerfile's default, which is not
// pulled here. Run as root.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chown, cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { parse, stringify } from 'yaml'
import { type Engine, ENGINE_PROGRAMS, startEngine } from './container-engine.ts'
import { BASE_TAG, BUILD_PROGRAMS, buildArguments, buildImages, type BuiltImages } from './container-image.ts'
import { startTunnelProxy, type TunnelProxy } from './container-proxy.ts'
import { type Image, loadContent } from './content.ts'
import { projectFolder } from './gateway.ts'
import { answersHttp, freePort, labProgram, missingProgram, run, temporaryFolder } from './lab.ts'
import { type BasicTlsUpstream, startBasicTlsRegistry, startPlainRegistry } from './upstreams.ts'

/** The image that the README's command builds, and the one that Buildah builds of the same Dockerfile. */
const IMAGES = ['entrepot:latest', 'entrepot:buildah'] as const
/** Where compose publishes the ports in this test: on loopback, yet not where somebody's own gateway listens. */
const PUBLISHED = '127.77.0.1'
const USER = 65532
const HARDENED = ['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges'] as const

const programs = [...BUILD_PROGRAMS, ...ENGINE_PROGRAMS, labProgram('crane'), '/usr/bin/docker-registry']
const missing = programs.map((program) => missingProgram(program)).filter((reason) => reason !== undefined)

interface ImageConfig {
  readonly User: string
  readonly Env: readonly string[]
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[]
  readonly WorkingDir: string
  readonly Volumes: Readonly<Record<string, unknown>>
  readonly ExposedPorts: Readonly<Record<string, unknown>>
  readonly Healthcheck: { readonly Test: readonly string[] }
  readonly Labels: Readonly<Record<string, string>>
}

/** The keys of `deploy/compose.yaml` that are facts about the gateway or promises of safety. */
interface ComposeFile {
  readonly services: {
    readonly entrepot: {
      readonly restart: string
      readonly stop_grace_period: string
      readonly ports: readonly string[]
      readonly volumes: readonly string[]
      readonly environment: Readonly<Record<string, string | null>>
      readonly secrets?: readonly string[]
      readonly read_only: boolean
      readonly tmpfs: readonly string[]
      readonly cap_drop: readonly string[]
      readonly security_opt: readonly string[]
      readonly healthcheck: { readonly test: readonly string[] }
    }
  }
  readonly volumes: Readonly<Record<string, { readonly name: string }>>
  readonly secrets?: Readonly<Record<string, { readonly file: string }>>
}

void describe('the container', { concurrency: false, skip: missing.length > 0 ? missing.join('; ') : false }, () => {
  const stack = new AsyncDisposableStack()
  const started: { engine?: Engine; built?: BuiltImages; folder?: string } = {}
  const engine = (): Engine => {
    if (started.engine === undefined) throw new Error('dockerd did not start')
    return started.engine
  }
  const configOf = async (image: string): Promise<ImageConfig> =>
    JSON.parse(await engine().docker(['inspect', '-f', '{{json .Config}}', image])) as ImageConfig

  before(
    async () => {
      const { path } = stack.use(await temporaryFolder())
      started.folder = path
      started.engine = stack.use(await startEngine(join(path, 'd')))
      const built = await buildImages(path)
      started.built = built
      for (const archive of built.archives) await engine().docker(['load', '-q', '-i', archive])
      const build = ['build', '-q', '--network', 'host', ...(await buildArguments(BASE_TAG))]
      await engine().docker([...build, '-t', 'entrepot:latest', projectFolder()])
    },
    { timeout: 900_000 },
  )
  after(() => stack.disposeAsync())

  void test('two builders make the same image, a few megabytes above its base', async () => {
    const [ours, buildahs] = [await configOf(IMAGES[0]), await configOf(IMAGES[1])]
    for (const key of ['User', 'Entrypoint', 'Cmd', 'WorkingDir', 'Volumes', 'ExposedPorts', 'Healthcheck'] as const)
      assert.deepEqual(buildahs[key], ours[key], key)
    assert.equal(ours.User, `${USER}:${USER}`)
    assert.deepEqual(ours.Entrypoint, ['node', '/app/src/main.ts'])
    assert.deepEqual(Object.keys(ours.Volumes), ['/data'])
    assert.deepEqual(
      Object.keys(ours.ExposedPorts).toSorted(),
      [0, 1, 2, 3, 4].map((port) => `500${port}/tcp`),
    )
    const version = (JSON.parse(await readFile(join(projectFolder(), 'package.json'), 'utf8')) as { version: string })
      .version
    assert.equal(ours.Labels['org.opencontainers.image.version'], version)
    assert.equal(ours.Labels['org.opencontainers.image.base.name'], BASE_TAG)
    const { imageBytes = 0, baseBytes = 0 } = started.built ?? {}
    const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
    process.stdout.write(
      `image ${megabytes(imageBytes)} unpacked, ${megabytes(imageBytes - baseBytes)} of it above its base\n`,
    )
    assert.ok(imageBytes - baseBytes < 40e6, 'it holds more than sources and libraries')
  })

  void test('the image holds no tool of development, no secret, and nothing that its user may write', async () => {
    const inside = async (script: string): Promise<string> =>
      engine().docker(['run', '--rm', '--network', 'none', '--entrypoint', 'sh', IMAGES[0], '-c', script])
    const lock = JSON.parse(await readFile(join(projectFolder(), 'package-lock.json'), 'utf8')) as {
      readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>
    }
    const expected = Object.entries(lock.packages)
      .filter(([path, { dev, devOptional }]) => path !== '' && dev !== true && devOptional !== true)
      .map(([path]) => path.slice('node_modules/'.length))
    const installed = (await inside('cd /app/node_modules && find . -name package.json')).split('\n')
    const packages = installed.flatMap((line) => /^\.\/((?:@[^/]+\/)?[^/]+)\/package\.json$/.exec(line)?.[1] ?? [])
    assert.deepEqual(packages.toSorted(), expected.toSorted())
    assert.equal(
      await inside('find / -xdev -writable -type f ! -path "/proc/*" ! -path "/dev/*" 2>/dev/null; true'),
      '',
    )
    assert.equal((await inside('ls /app')).trim(), 'LICENSE\nnode_modules\npackage.json\nsrc\nupstreams.d')
    assert.equal((await inside('ls /run/secrets 2>/dev/null; ls /data')).trim(), '')
    for (const image of IMAGES) {
      const text = await engine().docker(['history', '--no-trunc', '--format', '{{.CreatedBy}}', image])
      const said = `${text} ${JSON.stringify(await configOf(image))}`
      assert.doesNotMatch(said, /BEGIN CERTIFICATE|password|_auth|NODE_EXTRA_CA_CERTS|NPM_CONFIG_REGISTRY/i)
    }
  })

  for (const image of IMAGES) {
    void test(
      `${image} with no settings turns healthy, and SIGTERM as PID 1 ends it with 0`,
      { timeout: 180_000 },
      async () => {
        const { docker, state, becomesHealthy } = engine()
        const name = image.replace(':', '-')
        await docker(['run', '-d', '--name', name, '--network', 'none', '--health-interval', '1s', ...HARDENED, image])
        await becomesHealthy(name)
        const status = await docker(['exec', name, 'cat', '/proc/1/status'])
        assert.match(status, new RegExp(`^Uid:\\t${USER}\\t${USER}\\t${USER}\\t${USER}$`, 'm'))
        assert.match(status, /^CapEff:\t0+$/m)
        assert.match(status, /^NoNewPrivs:\t1$/m)
        // Without /tmp it has nowhere but /data to write to, and does not miss it.
        assert.equal((await engine().dockerAny(['exec', name, 'sh', '-c', '>/tmp/x'])).code, 2)
        assert.match(await docker(['exec', name, 'entrepot', 'check', '--offline']), /^ok /)
        assert.equal(await docker(['diff', name]), '')
        const startedAt = Date.now()
        await docker(['kill', '-s', 'TERM', name])
        assert.equal((await docker(['wait', name])).trim(), '0')
        const ms = Date.now() - startedAt
        assert.ok(ms < 10_000, `the drain of an idle gateway took ${ms} ms`)
        assert.equal((await state(name)).exitCode, 0)
        assert.match(await docker(['logs', name]), /"gateway\.stopped".*"drained":true/)
        await docker(['rm', '-v', name])
        process.stdout.write(`${image}: SIGTERM to exit 0 in ${ms} ms\n`)
      },
    )
  }

  void test('a transfer under way at SIGTERM ends whole before the exit', { timeout: 180_000 }, async () => {
    const content = await loadContent()
    const folder = join(started.folder ?? '', 'drain')
    await using upstream = await startPlainRegistry(`${folder}-registry`, content.storage('docker.io'))
    const { repository, blobs } = content.image('app')
    const layer = blobs.toSorted((a, b) => b.size - a.size)[0]
    assert.ok(layer !== undefined)
    const [all, admin] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`]
    await mkdir(join(folder, 'upstreams.d'), { recursive: true })
    const configuration = { listen: [{ address: all, default: 'docker.io' }], admin: { address: admin }, data: '/data' }
    await writeFile(join(folder, 'entrepot.yaml'), stringify(configuration))
    await writeFile(join(folder, 'upstreams.d', 'docker.io.yaml'), stringify({ url: upstream.url }))
    const { docker, state } = engine()
    const mounts = ['-v', `${folder}:/etc/entrepot:ro`, ...HARDENED]
    await docker(['run', '-d', '--name', 'drain', '--network', 'host', ...mounts, IMAGES[0]])
    await answersSoon(`http://${admin}/readyz`)
    const startedAt = Date.now()
    await readAcrossStop(`http://${all}/v2/${repository}/blobs/${layer.digest}`, layer.digest, async () => {
      await docker(['kill', '-s', 'TERM', 'drain'])
      await delay(7000)
      assert.equal((await state('drain')).status, 'running', 'it did not wait for the transfer')
    })
    assert.equal((await docker(['wait', 'drain'])).trim(), '0')
    process.stdout.write(`a transfer held for 7 s: SIGTERM to exit 0 in ${Date.now() - startedAt} ms\n`)
    await docker(['rm', '-v', 'drain'])
  })

  void test('a data folder of somebody else is refused with the command that mends it', async () => {
    const folder = join(started.folder ?? '', 'foreign')
    await mkdir(folder, { mode: 0o755 })
    const ran = await engine().dockerAny(['run', '--rm', '--network', 'none', '-v', `${folder}:/data`, IMAGES[0]])
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /cannot start:.*\/data.*chown/s)
  })

  void test('a configuration with a mistake stops the start with exit code 2', async () => {
    const file = join(started.folder ?? '', 'wrong.yaml')
    await writeFile(file, 'lisen: []\n')
    const mount = `${file}:/etc/entrepot/entrepot.yaml:ro`
    const ran = await engine().dockerAny(['run', '--rm', '--network', 'none', '-v', mount, IMAGES[0]])
    assert.equal(ran.code, 2)
    assert.match(ran.stderr, /entrepot\.yaml:1:1.*listen/)
  })

  void test('compose.yaml says what the image and the gateway are', async () => {
    const { services, volumes } = parse(await readFile(composeFile(projectFolder()), 'utf8')) as ComposeFile
    const { entrepot } = services
    const image = await configOf(IMAGES[0])
    assert.deepEqual(
      entrepot.ports.map((port) => `${port.slice(port.lastIndexOf(':') + 1)}/tcp`),
      Object.keys(image.ExposedPorts).toSorted(),
    )
    for (const port of entrepot.ports) assert.match(port, /^\$\{ENTREPOT_PUBLISH:-127\.0\.0\.1\}:(\d+):\1$/)
    const shipped = await Promise.all(
      ['docker.io', 'ghcr.io', 'quay.io', 'registry.k8s.io'].map(
        async (name) =>
          parse(await readFile(join(projectFolder(), 'upstreams.d', `${name}.yaml`), 'utf8')) as {
            readonly routes: { readonly port: number }
          },
      ),
    )
    assert.deepEqual(
      shipped.map(({ routes }) => `${routes.port}/tcp`),
      Object.keys(image.ExposedPorts).toSorted().slice(1),
    )
    assert.ok(entrepot.volumes.includes('data:/data') && 'data' in volumes)
    assert.equal(entrepot.restart, 'unless-stopped')
    assert.equal(entrepot.read_only, true)
    assert.deepEqual(entrepot.cap_drop, ['ALL'])
    assert.deepEqual(entrepot.security_opt, ['no-new-privileges:true'])
    assert.match(entrepot.tmpfs.join(), /^\/tmp:/)
    assert.equal(squeeze(entrepot.healthcheck.test.join(' ')), squeeze(image.Healthcheck.Test.join(' ')))
    // The defaults of `drain`: 5 s and 60 s.
    assert.ok(Number.parseInt(entrepot.stop_grace_period, 10) >= 65 + 5)
    const checked = await engine().compose(['-f', composeFile(projectFolder()), 'config'])
    assert.match(checked, /127\.0\.0\.1:5000:5000/)
  })

  void test(
    'compose behind a corporate proxy with secrets: a pull, a stop, and again from the volume',
    { timeout: 300_000 },
    async () => {
      await using site = await openSite(engine(), join(started.folder ?? '', 'site'))
      await runSite(engine(), site)
    },
  )
})

function composeFile(folder: string): string {
  return join(folder, 'deploy', 'compose.yaml')
}

async function answersSoon(url: string): Promise<void> {
  const deadline = Date.now() + 30_000
  while (!(await answersHttp(url).catch(() => false))) {
    if (Date.now() > deadline) throw new Error(`${url}: no answer`)
    await delay(100)
  }
}

/** Begins to read a blob, goes on when `stop` has settled, and checks the whole. Not read on, it fills the buffers on the way. */
async function readAcrossStop(url: string, digest: string, stop: () => Promise<void>): Promise<void> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, resolve).on('error', reject)
  })
  await delay(500)
  await stop()
  const hash = createHash('sha256')
  for await (const chunk of response) {
    hash.update(chunk as Buffer)
    // A client that takes its time: the gateway has sent all long before it has all.
    await delay(1)
  }
  assert.equal(`sha256:${hash.digest('hex')}`, digest)
}

/** Line ends of a folded scalar are of no interest. */
function squeeze(text: string): string {
  return text.replaceAll(/\s+/g, '')
}

/** A clone with its settings made, the registry it pulls from, and the proxy between them. */
interface Site extends AsyncDisposable {
  readonly upstream: BasicTlsUpstream
  readonly proxy: TunnelProxy
  readonly image: Image
  /** Runs compose in it. */
  readonly compose: (...args: readonly string[]) => Promise<string>
  readonly container: () => Promise<string>
}

async function openSite(engine: Engine, folder: string): Promise<Site> {
  await using stack = new AsyncDisposableStack()
  const content = await loadContent()
  const upstream = stack.use(await startBasicTlsRegistry(`${folder}-registry`, content.storage('docker.io')))
  // Made first, since the proxy has to be where the container reaches it.
  await engine.docker(['network', 'create', 'site'])
  stack.defer(async () => void (await engine.docker(['network', 'rm', 'site'])))
  const format = '{{(index .IPAM.Config 0).Gateway}}'
  const address = (await engine.docker(['network', 'inspect', '-f', format, 'site'])).trim()
  const proxy = stack.use(await startTunnelProxy(address))
  await cp(join(projectFolder(), 'deploy'), join(folder, 'deploy'), { recursive: true })
  await cp(join(projectFolder(), 'upstreams.d'), join(folder, 'upstreams.d'), { recursive: true })
  await takeUp(folder, upstream)
  const override = join(folder, 'network.yaml')
  await writeFile(override, stringify({ version: '3.9', networks: { default: { external: { name: 'site' } } } }))
  const env = { HTTPS_PROXY: proxy.url, NO_PROXY: '127.0.0.1', ENTREPOT_PUBLISH: PUBLISHED }
  const compose: Site['compose'] = (...args) =>
    engine.compose(['-f', composeFile(folder), '-f', override, '--no-ansi', ...args], env)
  stack.defer(async () => void (await compose('down', '-v', '-t', '1')))
  const owned = stack.move()
  return {
    upstream,
    proxy,
    image: content.image('app'),
    compose,
    container: async () => (await compose('ps', '-q', 'entrepot')).trim(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

/** Takes up every setting that compose.yaml has to offer, and declares the upstream as its comments say. */
async function takeUp(folder: string, upstream: BasicTlsUpstream): Promise<void> {
  const text = await readFile(composeFile(folder), 'utf8')
  const settings = text.replaceAll(/^( *)#(?=\S)/gm, '$1')
  assert.deepEqual((parse(settings) as ComposeFile).services.entrepot.secrets, ['docker-hub', 'corporate-ca'])
  await writeFile(composeFile(folder), settings)
  const secrets = join(folder, 'deploy', 'secrets')
  await mkdir(secrets)
  const token = join(secrets, 'docker-hub')
  await writeFile(token, upstream.password, { mode: 0o400 })
  await chown(token, USER, USER)
  await cp(upstream.caFile, join(secrets, 'corporate-ca.pem'))
  const declared = {
    url: upstream.url.replace('127.0.0.1', 'localhost'),
    routes: { port: 5001 },
    auth: { username: upstream.username, password: 'file:/run/secrets/docker-hub' },
    access: 'shared',
    tags: { ttl: '1s' },
  }
  await writeFile(join(folder, 'upstreams.d', 'docker.io.yaml'), stringify(declared))
}

async function runSite(engine: Engine, site: Site): Promise<void> {
  const { docker, state, becomesHealthy } = engine
  const { compose, upstream, proxy, image } = site
  await compose('up', '-d', '--no-build')
  const first = await site.container()
  await becomesHealthy(first)
  assert.match(await docker(['exec', first, 'sh', '-c', 'cat /proc/1/status']), /^NoNewPrivs:\t1$/m)
  assert.deepEqual(await pull(`${PUBLISHED}:5000/${image.repository}:${image.tag}`), image.digest)
  assert.ok(proxy.tunnels.length > 0, 'it did not go by the proxy')
  assert.deepEqual([...new Set(proxy.tunnels)], [new URL(upstream.url.replace('127.0.0.1', 'localhost')).host])
  for (const port of [5001, 5002, 5003, 5004])
    assert.equal((await fetch(`http://${PUBLISHED}:${port}/v2/`)).status, 200)

  // Through a published port the network ends with the container: what is still on its way then would be lost.
  const layer = image.blobs.toSorted((a, b) => b.size - a.size)[0]
  assert.ok(layer !== undefined)
  const startedAt = Date.now()
  const stops: Promise<string>[] = []
  await readAcrossStop(
    `http://${PUBLISHED}:5001/v2/${image.repository}/blobs/${layer.digest}`,
    layer.digest,
    async () => {
      stops.push(compose('stop'))
      await delay(7000)
    },
  )
  await Promise.all(stops)
  assert.equal((await state(first)).exitCode, 0)
  process.stdout.write(
    `compose: pulled through proxy and private CA; stop under way to exit 0 in ${Date.now() - startedAt} ms\n`,
  )

  const printed = await printedBy(engine, first)
  await compose('rm', '-f')
  await proxy.stop()
  await upstream.stop()
  await delay(1100)
  await compose('up', '-d', '--no-build')
  const second = await site.container()
  assert.notEqual(second, first)
  await becomesHealthy(second)
  assert.equal(await pull(`${PUBLISHED}:5000/docker.io/${image.repository}:${image.tag}`), image.digest)
  for (const text of [printed, await printedBy(engine, second)])
    assert.ok(!text.includes(upstream.password), 'the password was printed')
}

/** What an operator sees of a container: its log, its configuration, its environment. */
async function printedBy({ docker, dockerAny }: Engine, container: string): Promise<string> {
  const { stdout, stderr } = await dockerAny(['logs', container])
  return [stdout, stderr, await docker(['inspect', container])].join('\n')
}

/** Pulls the whole image with crane, which checks every digest, and gives that of the tag. */
async function pull(reference: string): Promise<string> {
  await using work = await temporaryFolder()
  const home = { cwd: work.path, env: { HOME: work.path, DOCKER_CONFIG: work.path } }
  await run(labProgram('crane'), ['pull', '--insecure', '--format=oci', reference, 'layout'], home)
  return (await run(labProgram('crane'), ['digest', '--insecure', reference], home)).trim()
}
