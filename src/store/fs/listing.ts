/** Walks the repositories tree: names in order, foreign files left alone, no more folders opened than an answer needs. */
import { lstat, opendir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import { parseTag, type Tag } from '../../oci/reference.ts'
import { MAX_REPOSITORY_LENGTH, parseRepository, type Repository } from '../../oci/repository.ts'
import { REPOSITORIES, linkPath, revisionsPath, revokedPath, tagLinkPath, tagsPath } from '../layout.ts'
import { isAbsence, storeError } from './fs-error.ts'

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

/** Manifests linked to a repository and not revoked. */
export async function listManifests(root: string, repository: Repository): Promise<Digest[]> {
  const linked: Digest[] = []
  const digests = await Array.fromAsync(revisions(root, repository))
  for (let start = 0; start < digests.length; start += WIDTH) {
    const slice = digests.slice(start, start + WIDTH)
    const exist = await Promise.all(slice.map((digest) => isLinked(root, repository, digest)))
    linked.push(...slice.filter((_, index) => exist[index]))
  }
  return linked
}

export interface ListRepositoriesOptions {
  /** Names up to and including this one are left out. */
  readonly last?: string
  readonly limit: number
}

/** Repositories with at least one manifest link, in lexical order of the whole name. */
export async function listRepositories(root: string, options: ListRepositoriesOptions): Promise<Repository[]> {
  const found: Repository[] = []
  if (options.limit <= 0) return found
  for await (const repository of walk(root, '', options.last ?? '')) {
    found.push(repository)
    if (found.length >= options.limit) break
  }
  return found
}

/**
 * Repositories below `prefix` (empty, or ending in a slash) after `last`. A name and the names below it are apart in
 * lexical order (`a`, `a-b`, `a/c`), so each folder gives two steps, itself and its inside, sorted with the others.
 */
async function* walk(root: string, prefix: string, last: string): AsyncGenerator<Repository> {
  const names = await readFolderNames(join(root, REPOSITORIES, prefix))
  const folders = names.map((name) => prefix + name).filter((path) => parseRepository(path) !== undefined)
  const steps = folders.flatMap((path) => [path, `${path}/`]).sort(compare)
  for (const step of steps) {
    if (step.endsWith('/')) {
      const mayHoldLater = step > last || last.startsWith(step)
      if (mayHoldLater && step.length < MAX_REPOSITORY_LENGTH) yield* walk(root, step, last)
      continue
    }
    const repository = step > last ? parseRepository(step) : undefined
    if (repository !== undefined && (await hasManifest(root, repository))) yield repository
  }
}

async function hasManifest(root: string, repository: Repository): Promise<boolean> {
  for await (const digest of revisions(root, repository)) {
    if (await isFile(join(root, linkPath(repository, 'manifest', digest)))) return true
  }
  return false
}

/** Digests that have a revision folder, whatever is in it. */
async function* revisions(root: string, repository: Repository): AsyncGenerator<Digest> {
  for (const algorithm of ['sha256', 'sha512']) {
    for (const hex of await readFolderNames(join(root, revisionsPath(repository), algorithm))) {
      const digest = parseDigest(`${algorithm}:${hex}`)
      if (digest !== undefined) yield digest
    }
  }
}

/** A revocation stands above a link, as in `Links.read`. */
async function isLinked(root: string, repository: Repository, digest: Digest): Promise<boolean> {
  const [link, revoked] = await Promise.all([
    isFile(join(root, linkPath(repository, 'manifest', digest))),
    isFile(join(root, revokedPath(repository, 'manifest', digest))),
  ])
  return link && !revoked
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isFile()
  } catch (error) {
    if (isAbsence(error)) return false
    throw storeError('look up', path, error)
  }
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
