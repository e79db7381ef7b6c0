// Real images, made once and kept in the lab: a Debian base, images on it, two platforms, zstd layers, an attached SBOM,
// a cosign signature, a Helm chart, a private image. Each upstream has a storage folder of its own with content of its own.

import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { labFolder, labProgram, run, temporaryFolder } from './lab.ts'
import { startPlainRegistry } from './upstreams.ts'

/** Raised when what is made here changes: the old content is then left alone and new content made. */
const CONTENT_VERSION = 2

/** The upstreams that hold content, under the names that clients know. */
export const REGISTRIES = ['docker.io', 'ghcr.io', 'quay.io'] as const
export type RegistryName = (typeof REGISTRIES)[number]

/** One tag, with all that hangs below it. */
export interface Image {
  readonly registry: RegistryName
  readonly repository: string
  readonly tag: string
  readonly mediaType: string
  readonly digest: string
  /** Manifests of its platforms, when it is an index; else its own digest alone. */
  readonly manifests: readonly string[]
  /** The manifest a linux/amd64 client takes. */
  readonly amd64: string
  /** Configuration and layers of all its manifests. */
  readonly blobs: readonly { readonly digest: string; readonly size: number }[]
  /** Manifests that refer to it (SBOM, signature), from the fallback tag of the tag scheme. */
  readonly referrers: readonly string[]
}

export interface Content {
  /** Storage folder of each upstream, ready for a registry's `rootdirectory`. Not to be written to. */
  readonly storage: (registry: RegistryName) => string
  /** The image under a short name: `debian`, `app`, `zstd`, `secret`, `tools`, `signed`, `chart`. */
  readonly image: (name: ImageName) => Image
  readonly cosignPublicKey: string
}

const IMAGES = {
  debian: { registry: 'docker.io', repository: 'library/debian', tag: 'bookworm' },
  app: { registry: 'docker.io', repository: 'library/app', tag: '1' },
  zstd: { registry: 'docker.io', repository: 'library/app-zstd', tag: '1' },
  secret: { registry: 'docker.io', repository: 'private/secret', tag: '1' },
  tools: { registry: 'ghcr.io', repository: 'acme/tools', tag: '1' },
  signed: { registry: 'quay.io', repository: 'acme/signed', tag: '1' },
  chart: { registry: 'quay.io', repository: 'charts/demo', tag: '0.1.0' },
} as const satisfies Record<string, { registry: RegistryName; repository: string; tag: string }>

export type ImageName = keyof typeof IMAGES

function contentFolder(): string {
  return join(labFolder(), `content-${CONTENT_VERSION}`)
}

/** The content, made first when the lab has none (about two minutes). */
export async function loadContent(): Promise<Content> {
  const folder = contentFolder()
  if (!existsSync(join(folder, 'images.json'))) await makeContent(folder)
  const images = JSON.parse(readFileSync(join(folder, 'images.json'), 'utf8')) as Record<ImageName, Image>
  return {
    storage: (registry) => join(folder, 'storage', registry),
    image: (name) => images[name],
    cosignPublicKey: join(folder, 'cosign.pub'),
  }
}

async function makeContent(folder: string): Promise<void> {
  await using work = await temporaryFolder()
  const making = `${folder}.making`
  await rm(making, { recursive: true, force: true })
  await mkdir(making, { recursive: true })
  const hosts = new Map<RegistryName, string>()
  await using running = new AsyncDisposableStack()
  for (const registry of REGISTRIES) {
    const upstream = await startPlainRegistry(join(work.path, registry), join(making, 'storage', registry))
    running.use(upstream)
    hosts.set(registry, upstream.host)
  }
  const at = (name: ImageName): string => {
    const { registry, repository, tag } = IMAGES[name]
    return `${hosts.get(registry)}/${repository}:${tag}`
  }
  await makeImages(work.path, at)
  await makeArtifacts(work.path, making, at)
  const images: Partial<Record<ImageName, Image>> = {}
  for (const name of Object.keys(IMAGES) as ImageName[]) {
    images[name] = await describe(IMAGES[name], hosts.get(IMAGES[name].registry) ?? '')
  }
  await writeFile(join(making, 'images.json'), JSON.stringify(images, undefined, 2))
  await rename(making, folder)
}

/** Builds the images with mmdebstrap and buildah and pushes each; index and zstd forms are made from what was pushed. */
async function makeImages(work: string, at: (name: ImageName) => string): Promise<void> {
  const buildah = buildahIn(work)
  const rootfs = join(work, 'rootfs.tar')
  await run('mmdebstrap', ['--variant=essential', '--mode=root', '--include=ca-certificates', 'bookworm', rootfs], {
    timeoutMs: 900_000,
  })
  const container = (await buildah(['from', 'scratch'])).trim()
  await buildah(['add', container, rootfs, '/'])
  await buildah(['config', '--cmd', '/bin/bash', container])
  await buildah(['commit', '--format', 'oci', container, 'localhost/debian:bookworm'])
  await rm(rootfs)
  await pushTwoPlatforms(buildah, 'localhost/debian:bookworm', at('debian'))

  const layered = join(work, 'layered')
  await mkdir(layered)
  await writeFile(join(layered, 'hello.sh'), '#!/bin/sh\necho hello from the image\n', { mode: 0o755 })
  await writeFile(join(layered, 'random.bin'), randomBytes(3_000_000))
  await writeFile(
    join(layered, 'Containerfile'),
    [
      'FROM localhost/debian:bookworm',
      'COPY hello.sh /usr/local/bin/hello.sh',
      'RUN dpkg-query -W > /packages.txt && seq 1 200000 > /numbers.txt',
      'COPY random.bin /opt/random.bin',
      'RUN mkdir -p /srv/app && for n in $(seq 1 300); do echo "file $n" > /srv/app/$n.txt; done',
      'ENV NAME=app',
      'CMD ["/usr/local/bin/hello.sh"]',
      '',
    ].join('\n'),
  )
  await buildah(['bud', '--layers', '--format', 'oci', '-t', 'localhost/app:1', layered])
  await pushTwoPlatforms(buildah, 'localhost/app:1', at('app'))
  const layout = join(work, 'zstd')
  await run('skopeo', [
    'copy',
    '--policy',
    await acceptAnything(work),
    '--src-tls-verify=false',
    '--dest-compress-format',
    'zstd',
    '--dest-compress',
    '--format',
    'oci',
    '--override-arch',
    'amd64',
    `docker://${at('app')}`,
    `oci:${layout}:1`,
  ])
  await run('skopeo', [
    'copy',
    '--policy',
    await acceptAnything(work),
    '--dest-tls-verify=false',
    `oci:${layout}:1`,
    `docker://${at('zstd')}`,
  ])

  for (const name of ['secret', 'tools', 'signed'] as const) {
    const context = join(work, name)
    await mkdir(context)
    await writeFile(join(context, 'one.bin'), randomBytes(1_500_000))
    await writeFile(join(context, 'two.txt'), `${name}\n`.repeat(20_000))
    await writeFile(join(context, 'Containerfile'), 'FROM scratch\nCOPY one.bin /one.bin\nCOPY two.txt /two.txt\n')
    await buildah([
      'bud',
      '--layers',
      '--format',
      name === 'tools' ? 'docker' : 'oci',
      '-t',
      `localhost/${name}`,
      context,
    ])
    if (name === 'tools') await buildah(['push', '--tls-verify=false', `localhost/${name}`, `docker://${at(name)}`])
    else await pushTwoPlatforms(buildah, `localhost/${name}`, at(name))
  }
}

type Buildah = (args: readonly string[]) => Promise<string>

function buildahIn(work: string): Buildah {
  const storage = ['--root', join(work, 'root'), '--runroot', join(work, 'run'), '--storage-driver', 'vfs']
  return async (args) => {
    const policy = ['bud', 'commit', 'push', 'from'].includes(args[0] ?? '')
      ? ['--signature-policy', await acceptAnything(work)]
      : []
    const [verb = '', ...rest] = args
    return run('buildah', [...storage, verb, ...policy, ...rest], {
      env: { BUILDAH_ISOLATION: 'chroot', HOME: work, XDG_RUNTIME_DIR: work },
      timeoutMs: 600_000,
    })
  }
}

/** A containers/image policy that takes unsigned images; gives its path. */
export async function acceptAnything(folder: string): Promise<string> {
  const file = join(folder, 'policy.json')
  await writeFile(file, '{"default":[{"type":"insecureAcceptAnything"}]}')
  return file
}

/** Pushes an image and makes the tag an index of linux/amd64 and linux/arm64 whose children differ in digest. */
async function pushTwoPlatforms(buildah: Buildah, local: string, reference: string): Promise<void> {
  const colon = reference.lastIndexOf(':')
  const part = (arch: string): string => `${reference.slice(0, colon)}:${reference.slice(colon + 1)}-${arch}`
  await buildah(['push', '--tls-verify=false', '--format', 'oci', local, `docker://${part('amd64')}`])
  const crane = labProgram('crane')
  await run(crane, ['mutate', '--insecure', part('amd64'), '--set-platform', 'linux/arm64', '-t', part('arm64')])
  await run(crane, ['index', 'append', '--insecure', '-m', part('amd64'), '-m', part('arm64'), '-t', reference])
}

/** What hangs on `signed`: an SBOM by oras and a signature by cosign; and a Helm chart of its own. */
async function makeArtifacts(work: string, keep: string, at: (name: ImageName) => string): Promise<void> {
  const signed = at('signed')
  const digest = (await run(labProgram('crane'), ['digest', '--insecure', signed])).trim()
  const byDigest = `${signed.slice(0, signed.lastIndexOf(':'))}@${digest}`
  const sbom = {
    spdxVersion: 'SPDX-2.3',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: 'signed',
    dataLicense: 'CC0-1.0',
    packages: [],
  }
  await writeFile(join(work, 'sbom.spdx.json'), JSON.stringify(sbom))
  await run(
    labProgram('oras'),
    [
      'attach',
      '--plain-http',
      '--artifact-type',
      'application/spdx+json',
      byDigest,
      'sbom.spdx.json:application/spdx+json',
    ],
    { cwd: work },
  )
  const key = { cwd: keep, env: { COSIGN_PASSWORD: '' } }
  await run(labProgram('cosign'), ['generate-key-pair'], key)
  await run(
    labProgram('cosign'),
    [
      'sign',
      '-y',
      '--key',
      'cosign.key',
      '--tlog-upload=false',
      '--use-signing-config=false',
      '--allow-insecure-registry',
      '--allow-http-registry',
      byDigest,
    ],
    key,
  )
  const chart = at('chart')
  const home = { cwd: work, env: { HOME: work } }
  await run(labProgram('helm'), ['create', 'demo'], home)
  await run(labProgram('helm'), ['package', 'demo', '--version', '0.1.0'], home)
  await run(
    labProgram('helm'),
    ['push', 'demo-0.1.0.tgz', `oci://${chart.slice(0, chart.lastIndexOf('/'))}`, '--plain-http'],
    home,
  )
}

interface ManifestJson {
  readonly mediaType?: string
  readonly manifests?: readonly { digest: string; platform?: { architecture?: string } }[]
  readonly config?: { digest: string; size: number }
  readonly layers?: readonly { digest: string; size: number }[]
}

/** Reads a tag back from the registry that holds it, and what is below it. */
async function describe(name: (typeof IMAGES)[ImageName], host: string): Promise<Image> {
  const base = `http://${host}/v2/${name.repository}/manifests`
  const top = await readManifest(`${base}/${name.tag}`)
  const children = top.json.manifests ?? []
  const blobs = new Map<string, number>()
  const addBlobs = (json: ManifestJson): void => {
    for (const one of [...(json.config === undefined ? [] : [json.config]), ...(json.layers ?? [])]) {
      blobs.set(one.digest, one.size)
    }
  }
  addBlobs(top.json)
  for (const child of children) addBlobs((await readManifest(`${base}/${child.digest}`)).json)
  const fallback = await readManifest(`${base}/${top.digest.replace(':', '-')}`).catch(() => undefined)
  return {
    ...name,
    referrers: (fallback?.json.manifests ?? []).map((one) => one.digest),
    mediaType: top.mediaType,
    digest: top.digest,
    manifests: children.length === 0 ? [top.digest] : children.map((child) => child.digest),
    amd64: children.find((child) => child.platform?.architecture === 'amd64')?.digest ?? top.digest,
    blobs: [...blobs].map(([digest, size]) => ({ digest, size })),
  }
}

const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]

async function readManifest(url: string): Promise<{ json: ManifestJson; digest: string; mediaType: string }> {
  const response = await fetch(url, { headers: { accept: MANIFEST_TYPES.join(', ') } })
  if (response.status !== 200) throw new Error(`GET ${url}: ${response.status}`)
  const bytes = Buffer.from(await response.arrayBuffer())
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  return {
    json: JSON.parse(bytes.toString()) as ManifestJson,
    digest,
    mediaType: response.headers.get('content-type') ?? '',
  }
}
