/** Walks the repositories tree: names in order, foreign files left alone, no more folders opened than an answer needs. */
import type { Stats } from 'node:fs'
import { lstat, opendir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import { parseTag, type Tag } from '../../oci/reference.ts'
import { MAX_REPOSITORY_LENGTH, parseRepository, type Repository } from '../../oci/repository.ts'
import {
  BLOBS,
  REPOSITORIES,
  blobPath,
  layersPath,
  linkPath,
  revisionsPath,
  revokedPath,
  tagHistoryPath,
  tagIndexPath,
  tagLinkPath,
  tagsPath,
} from '../layout.ts'
import type { BlobEntry, Revision } from '../store.ts'
import { isAbsence, orAbsent, storeError } from './fs-error.ts'
import { diskBytesOf, stampOf } from './stored-blob.ts'

const ALGORITHMS = ['sha256', 'sha512'] as const

/** Names read of one folder; the rest of a larger one is not listed. */
const MAX_ENTRIES = 100_000
/** Look-ups in flight at a time. */
const WIDTH = 16

/** Tags of a repository that point somewhere, in lexical order. */
export async function listTags(root: string, repository: Repository): Promise<Tag[]> {
  const names = await readFolderNames(join(root, tagsPath(repository)))
  const tags = names.map(parseTag).filter((tag) => tag !== undefined)
  const present: Tag[] = []
  for (let start = 0; start < tags.length; start += WIDTH) {
    const slice = tags.slice(start, start + WIDTH)
    const exist = await Promise.all(slice.map((tag) => isFile(join(root, tagLinkPath(repository, tag)))))
    present.push(...slice.filter((_, index) => exist[index]))
  }
  return present
}

/** Digests that a tag points or pointed to, by the time of their index link, the last first. */
export async function listTagHistory(root: string, repository: Repository, tag: Tag, limit: number): Promise<Digest[]> {
  const found: { readonly digest: Digest; readonly at: number }[] = []
  for (const algorithm of ALGORITHMS) {
    const names = await readFolderNames(join(root, tagHistoryPath(repository, tag, algorithm)))
    const digests = names.map((name) => parseDigest(`${algorithm}:${name}`)).filter((digest) => digest !== undefined)
    for (let start = 0; start < digests.length; start += WIDTH) {
      const slice = digests.slice(start, start + WIDTH)
      const stats = await Promise.all(
        slice.map(async (digest) => ({
          digest,
          stat: await statFile(join(root, tagIndexPath(repository, tag, digest))),
        })),
      )
      found.push(...stats.flatMap(({ digest, stat }) => (stat === undefined ? [] : [{ digest, at: stat.mtimeMs }])))
    }
  }
  const newestFirst = found.sort((a, b) => b.at - a.at)
  return newestFirst.slice(0, limit).map(({ digest }) => digest)
}

/** Manifests linked to a repository, revoked ones too. A revocation stands above a link, as in `Links.read`. */
export async function listRevisions(root: string, repository: Repository): Promise<Revision[]> {
  const found: Revision[] = []
  const digests = await Array.fromAsync(revisionFolders(root, repository))
  for (let start = 0; start < digests.length; start += WIDTH) {
    const slice = digests.slice(start, start + WIDTH)
    const read = await Promise.all(slice.map((digest) => readRevision(root, repository, digest)))
    found.push(...read.filter((revision) => revision !== undefined))
  }
  return found
}

async function readRevision(root: string, repository: Repository, digest: Digest): Promise<Revision | undefined> {
  const [link, revoked] = await Promise.all([
    statFile(join(root, linkPath(repository, 'manifest', digest))),
    statFile(join(root, revokedPath(repository, 'manifest', digest))),
  ])
  const stat = revoked ?? link
  return stat && { digest, isRevoked: revoked !== undefined, usedAt: Math.floor(stat.mtimeMs) }
}

/** Digests with a folder under a repository's `_layers`, whatever is in it; any number, one folder at a time. */
export async function* listBlobLinks(root: string, repository: Repository): AsyncGenerator<Digest> {
  yield* digestFolders(join(root, layersPath(repository)))
}

/**
 * Every blob's file, in lexical order of the digest; also of those that come while it walks, in a folder it has not opened
 * yet. Only one two-letter folder's names are in memory at a time.
 */
export async function* listBlobs(root: string): AsyncGenerator<BlobEntry> {
  for (const algorithm of ALGORITHMS) {
    const folder = join(root, BLOBS, algorithm)
    if ((await orAbsent('look up', folder, lstat(folder))) === undefined) continue
    // Each of the 256 that can be, not only those there at the start: what comes behind the walk is found by it.
    for (let first = 0; first < 256; first++) {
      const prefix = first.toString(16).padStart(2, '0')
      const hexes = await readFolderNames(join(folder, prefix))
      for (let start = 0; start < hexes.length; start += WIDTH) {
        const slice = hexes.slice(start, start + WIDTH)
        const entries = await Promise.all(slice.map((hex) => readBlobEntry(root, parseDigest(`${algorithm}:${hex}`))))
        yield* entries.filter((entry) => entry !== undefined)
      }
    }
  }
}

async function readBlobEntry(root: string, digest: Digest | undefined): Promise<BlobEntry | undefined> {
  const stat = digest && (await statFile(join(root, blobPath(digest))))
  return stat && { digest, ...stampOf(stat), diskBytes: diskBytesOf(stat) }
}

export interface ListRepositoriesOptions {
  /** Names up to and including this one are left out. */
  readonly last?: string
  readonly limit: number
  /** Also those without a manifest that may be served. Default: false. */
  readonly any?: boolean
}

/** Repositories with at least one manifest link, in lexical order of the whole name. */
export async function listRepositories(root: string, options: ListRepositoriesOptions): Promise<Repository[]> {
  const found: Repository[] = []
  if (options.limit <= 0) return found
  const isListed = options.any === true ? hasLinks : hasManifest
  for await (const repository of walk(root, '', options.last ?? '', isListed)) {
    found.push(repository)
    if (found.length >= options.limit) break
  }
  return found
}

/**
 * Repositories below `prefix` (empty, or ending in a slash) after `last`. A name and the names below it are apart in
 * lexical order (`a`, `a-b`, `a/c`), so each folder gives two steps, itself and its inside, sorted with the others.
 */
async function* walk(
  root: string,
  prefix: string,
  last: string,
  isListed: (root: string, repository: Repository) => Promise<boolean>,
): AsyncGenerator<Repository> {
  const names = await readFolderNames(join(root, REPOSITORIES, prefix))
  const folders = names.map((name) => prefix + name).filter((path) => parseRepository(path) !== undefined)
  const steps = folders.flatMap((path) => [path, `${path}/`]).sort(compare)
  for (const step of steps) {
    if (step.endsWith('/')) {
      const mayHoldLater = step > last || last.startsWith(step)
      if (mayHoldLater && step.length < MAX_REPOSITORY_LENGTH) yield* walk(root, step, last, isListed)
      continue
    }
    const repository = step > last ? parseRepository(step) : undefined
    if (repository !== undefined && (await isListed(root, repository))) yield repository
  }
}

async function hasManifest(root: string, repository: Repository): Promise<boolean> {
  for await (const digest of revisionFolders(root, repository)) {
    if (await isFile(join(root, linkPath(repository, 'manifest', digest)))) return true
  }
  return false
}

async function hasLinks(root: string, repository: Repository): Promise<boolean> {
  for (const path of [revisionsPath(repository), layersPath(repository)]) {
    for await (const _ of digestFolders(join(root, path))) return true
  }
  return false
}

/** Digests that have a revision folder, whatever is in it. */
function revisionFolders(root: string, repository: Repository): AsyncGenerator<Digest> {
  return digestFolders(join(root, revisionsPath(repository)))
}

async function* digestFolders(path: string): AsyncGenerator<Digest> {
  for (const algorithm of ALGORITHMS) {
    for (const hex of await readFolderNames(join(path, algorithm))) {
      const digest = parseDigest(`${algorithm}:${hex}`)
      if (digest !== undefined) yield digest
    }
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await statFile(path)) !== undefined
}

async function statFile(path: string): Promise<Stats | undefined> {
  const stat = await orAbsent('look up', path, lstat(path))
  return stat?.isFile() === true ? stat : undefined
}

/** Names of real folders in `path`, in lexical order; symbolic links are not followed. */
async function readFolderNames(path: string): Promise<string[]> {
  const names: string[] = []
  try {
    for await (const entry of await opendir(path)) {
      if (entry.isDirectory() && names.push(entry.name) >= MAX_ENTRIES) break
    }
  } catch (error) {
    if (!isAbsence(error)) throw storeError('list', path, error)
  }
  return names.sort(compare)
}

/** By code unit, as Go's `sort.Strings` orders these ASCII names. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
