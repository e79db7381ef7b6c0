// The image by Buildah: a base with Node made here from Debian packages, and the Dockerfile built on it. The base stands
// where a site would have its own; nothing is pulled.

import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, realpath, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { acceptAnything } from './content.ts'
import { projectFolder } from './gateway.ts'
import { labFolder, run } from './lab.ts'

/** Programs without which no image can be made here. */
export const BUILD_PROGRAMS = ['/usr/bin/buildah', '/usr/bin/mmdebstrap'] as const

/** Raised when the packages of the base change. */
const BASE_VERSION = 1

export interface BuiltImages {
  /** `docker load` takes these: the base as `entrepot-e2e-base`, the image as `entrepot:buildah`. */
  readonly archives: readonly string[]
  readonly imageBytes: number
  readonly baseBytes: number
}

/** Builds the base and the image in `folder`. Installs the libraries from npm's registry, as this machine's npm does. */
export async function buildImages(folder: string): Promise<BuiltImages> {
  const buildah = await openBuildah(folder)
  const container = (await buildah(['from', 'scratch'])).trim()
  await buildah(['add', container, await debianRoot(), '/'])
  await buildah(['add', container, await nodeFiles(folder), '/usr/local/'])
  await buildah(['commit', '--format', 'docker', container, 'localhost/base'])
  await buildah(['rm', container])
  const build = await buildArguments('localhost/base')
  // The OCI format has no place for a health check.
  await buildah(['bud', '--format', 'docker', ...build, '-t', 'localhost/entrepot', projectFolder()])
  const base = join(folder, 'base.tar')
  const image = join(folder, 'image.tar')
  await buildah(['push', 'localhost/base', `docker-archive:${base}:${BASE_TAG}`])
  await buildah(['push', 'localhost/entrepot', `docker-archive:${image}:entrepot:buildah`])
  // Layers are not compressed in these archives: what the image takes on a disk.
  return { archives: [base, image], imageBytes: (await stat(image)).size, baseBytes: (await stat(base)).size }
}

export const BASE_TAG = 'entrepot-e2e-base:latest'

/** What every builder is told: the base, where npm finds libraries, and the CA that this machine needs for it, if any. */
export async function buildArguments(base: string): Promise<readonly string[]> {
  const registry = (await run('npm', ['config', 'get', 'registry'])).trim()
  const ca = process.env['NODE_EXTRA_CA_CERTS']
  const secret = ca === undefined || ca === '' ? [] : ['--secret', `id=ca,src=${ca}`]
  return ['--build-arg', `BASE=${base}`, '--build-arg', `NPM_CONFIG_REGISTRY=${registry}`, ...secret]
}

/** A Debian root file system with what Node links to, made once (half a minute) and kept in the lab. */
async function debianRoot(): Promise<string> {
  const folder = join(labFolder(), `container-base-${BASE_VERSION}`)
  const file = join(folder, 'rootfs.tar')
  if (existsSync(file)) return file
  await mkdir(folder, { recursive: true })
  const making = join(folder, `making-${process.pid}.tar`)
  const packages = '--include=libatomic1,libstdc++6'
  await run('mmdebstrap', ['--variant=essential', '--mode=root', packages, 'bookworm', making], { timeoutMs: 900_000 })
  await rename(making, file)
  return file
}

/** The Node that runs this test and the npm of this machine, as they lie below /usr/local in Node's own images. */
async function nodeFiles(folder: string): Promise<string> {
  const files = join(folder, 'node')
  const modules = join(files, 'lib', 'node_modules')
  await mkdir(join(files, 'bin'), { recursive: true })
  await cp(process.execPath, join(files, 'bin', 'node'))
  const npm = await realpath((await run('sh', ['-c', 'command -v npm'])).trim())
  await cp(dirname(dirname(npm)), join(modules, 'npm'), { recursive: true, dereference: true })
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(files, 'bin', 'npm'))
  return files
}

async function openBuildah(folder: string): Promise<(args: readonly string[]) => Promise<string>> {
  const home = join(folder, 'buildah')
  await mkdir(home)
  const policy = await acceptAnything(home)
  const configuration = join(home, 'registries.conf')
  // No registry to search: a name that is not in the store is an error, not a pull.
  await writeFile(configuration, 'unqualified-search-registries = []\n')
  // vfs copies the whole image at every step: three times the time.
  const driver = (await readFile('/proc/filesystems', 'utf8')).includes('overlay') ? 'overlay' : 'vfs'
  const storage = ['--root', join(home, 'root'), '--runroot', join(home, 'run'), '--storage-driver', driver]
  const env = {
    BUILDAH_ISOLATION: 'chroot',
    HOME: home,
    XDG_RUNTIME_DIR: home,
    CONTAINERS_REGISTRIES_CONF: configuration,
  }
  return ([verb = '', ...rest]) => {
    const trust = ['bud', 'commit', 'push', 'from'].includes(verb) ? ['--signature-policy', policy] : []
    return run('buildah', [...storage, verb, ...trust, ...rest], { env, timeoutMs: 600_000 })
  }
}
