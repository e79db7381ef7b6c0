// What lies in a folder of the distribution layout, read as an operator would, and whether an address serves all of it.
// Knows the layout from the distribution project's own documentation, not from the gateway's code.

import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface StoredRepository {
  readonly name: string
  /** Digest by tag. */
  readonly tags: ReadonlyMap<string, string>
  readonly manifests: readonly string[]
  /** Those with a link below `_layers`. */
  readonly blobs: readonly string[]
}

export interface ServedCounts {
  readonly tags: number
  readonly manifests: number
  readonly blobs: number
  readonly bytes: number
}

const VERSION_FOLDER = join('docker', 'registry', 'v2')

/** Every repository below `root`, a registry's `rootdirectory`, with what it links. */
export async function readStored(root: string): Promise<readonly StoredRepository[]> {
  const repositories = join(root, VERSION_FOLDER, 'repositories')
  const entries = await readdir(repositories, { recursive: true })
  const names = entries
    .filter((path) => path.endsWith('/_manifests'))
    .map((path) => path.slice(0, -'/_manifests'.length))
  const stored = names.toSorted().map((name) => readRepository(name, join(repositories, name)))
  return Promise.all(stored)
}

/** Where the bytes of a blob or manifest lie. */
export function blobFile(root: string, digest: string): string {
  const [algorithm = '', hex = ''] = digest.split(':')
  return join(root, VERSION_FOLDER, 'blobs', algorithm, hex.slice(0, 2), hex, 'data')
}

async function readRepository(name: string, folder: string): Promise<StoredRepository> {
  const tags = new Map<string, string>()
  for (const tag of await names(join(folder, '_manifests', 'tags'))) {
    tags.set(tag, (await readFile(join(folder, '_manifests', 'tags', tag, 'current', 'link'), 'utf8')).trim())
  }
  const digests = async (below: string): Promise<readonly string[]> =>
    (await names(join(folder, below, 'sha256'))).map((hex) => `sha256:${hex}`)
  return { name, tags, manifests: await digests('_manifests/revisions'), blobs: await digests('_layers') }
}

function names(folder: string): Promise<readonly string[]> {
  return readdir(folder).catch(() => [])
}

/**
 * Gets every tag, manifest and blob of `stored` from a registry at `address` (host:port) and hashes each body. Throws at
 * the first that is missing or differs.
 */
export async function assertServed(address: string, stored: readonly StoredRepository[]): Promise<ServedCounts> {
  let bytes = 0
  const fetchHashed = async (path: string, digest: string): Promise<void> => {
    const got = await getDigest(`http://${address}/v2/${path}`)
    if (got.status !== 200 || got.digest !== digest) throw new Error(`${path}: ${got.status}, ${got.digest}`)
    bytes += got.bytes
  }
  for (const { name, tags, manifests, blobs } of stored) {
    const listed = await (await fetch(`http://${address}/v2/${name}/tags/list`)).text()
    const missing = [...tags.keys()].filter((tag) => !listed.includes(JSON.stringify(tag)))
    if (missing.length > 0) throw new Error(`${name}: tags ${missing.join(', ')} are not in ${listed}`)
    for (const [tag, digest] of tags) await fetchHashed(`${name}/manifests/${tag}`, digest)
    for (const digest of manifests) await fetchHashed(`${name}/manifests/${digest}`, digest)
    for (const digest of blobs) await fetchHashed(`${name}/blobs/${digest}`, digest)
  }
  const sum = (count: (repository: StoredRepository) => number): number =>
    stored.reduce((total, repository) => total + count(repository), 0)
  return {
    tags: sum(({ tags }) => tags.size),
    manifests: sum(({ manifests }) => manifests.length),
    blobs: sum(({ blobs }) => blobs.length),
    bytes,
  }
}

export interface Got {
  readonly status: number
  readonly digest: string
  readonly bytes: number
  /** The connection ended before the announced length. */
  readonly isCut: boolean
}

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ')

/** Gets and hashes a body without keeping it. Status 0: the connection ended before there was any. */
export async function getDigest(url: string): Promise<Got> {
  const response = await fetch(url, { headers: { accept: ACCEPT } }).catch(() => undefined)
  if (response === undefined) return { status: 0, digest: '', bytes: 0, isCut: true }
  const hash = createHash('sha256')
  let bytes = 0
  let isCut = false
  try {
    for await (const chunk of response.body ?? []) {
      hash.update(chunk)
      bytes += chunk.byteLength
    }
  } catch {
    isCut = true
  }
  return { status: response.status, digest: `sha256:${hash.digest('hex')}`, bytes, isCut }
}
