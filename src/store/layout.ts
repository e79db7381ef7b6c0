/**
 * Where everything lies inside one namespace's root: the only place that builds such a path. The same strings are file
 * paths below `<data>/<namespace>` and keys in a bucket. Every part comes from a validated value, so none can leave the
 * root. Rule: distribution's registry/storage/paths.go, checked on disk with registry v3.1.2.
 *
 *     origin.json                                              ours: which registry these bytes are of
 *     pins.json                                                ours: images that are never evicted
 *     incoming/<algo>-<hex>                                    ours: a body on its way in
 *     incoming/<algo>-<hex>.map                                ours: which of its bytes are there, synced
 *     incoming/<algo>-<hex>.note                               ours: and which are written, until the machine restarts
 *     incoming/<anything>.tmp                                  ours: a small file before its rename
 *     quarantine/<algo>-<hex>                                  ours: bytes that are not what their name said
 *     docker/registry/v2/
 *       blobs/<algo>/<first 2 hex>/<hex>/data
 *       repositories/<name>/
 *         _layers/<algo>/<hex>/link                            the digest, no newline
 *         _layers/<algo>/<hex>/link.revoked                    ours: stands instead of `link`
 *         _manifests/revisions/<algo>/<hex>/link
 *         _manifests/revisions/<algo>/<hex>/link.revoked       ours
 *         _manifests/revisions/<algo>/<hex>/mediatype          ours: only where the JSON does not tell the type
 *         _manifests/tags/<tag>/current/link
 *         _manifests/tags/<tag>/index/<algo>/<hex>/link
 */
import { algorithmOf, hexOf, type Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { LinkKind } from './store.ts'

export const ORIGIN = 'origin.json'
export const PINS = 'pins.json'
export const INCOMING = 'incoming'
export const QUARANTINE = 'quarantine'
export const BLOBS = 'docker/registry/v2/blobs'
export const REPOSITORIES = 'docker/registry/v2/repositories'
/** Ends the name of an interval map beside its incoming file. */
export const MAP_SUFFIX = '.map'
/** Ends the name of what is known of bytes that are not synced. */
export const NOTE_SUFFIX = '.note'
export const TEMPORARY_SUFFIX = '.tmp'

export function blobPath(digest: Digest): string {
  const hex = hexOf(digest)
  return `${BLOBS}/${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}/data`
}

/** Name of a digest's file in `incoming` and `quarantine`. A colon is no file name everywhere, a dash is. */
export function flatName(digest: Digest): string {
  return `${algorithmOf(digest)}-${hexOf(digest)}`
}

export function incomingPath(digest: Digest): string {
  return `${INCOMING}/${flatName(digest)}`
}

export function mapPath(digest: Digest): string {
  return `${incomingPath(digest)}${MAP_SUFFIX}`
}

export function notePath(digest: Digest): string {
  return `${incomingPath(digest)}${NOTE_SUFFIX}`
}

export function quarantinePath(digest: Digest): string {
  return `${QUARANTINE}/${flatName(digest)}`
}

export function repositoryPath(repository: Repository): string {
  return `${REPOSITORIES}/${repository}`
}

export function layersPath(repository: Repository): string {
  return `${repositoryPath(repository)}/_layers`
}

export function revisionsPath(repository: Repository): string {
  return `${repositoryPath(repository)}/_manifests/revisions`
}

export function linkPath(repository: Repository, kind: LinkKind, digest: Digest): string {
  const links = kind === 'blob' ? layersPath(repository) : revisionsPath(repository)
  return `${links}/${algorithmOf(digest)}/${hexOf(digest)}/link`
}

export function revokedPath(repository: Repository, kind: LinkKind, digest: Digest): string {
  return `${linkPath(repository, kind, digest)}.revoked`
}

export function mediaTypePath(repository: Repository, digest: Digest): string {
  return `${revisionsPath(repository)}/${algorithmOf(digest)}/${hexOf(digest)}/mediatype`
}

export function tagsPath(repository: Repository): string {
  return `${repositoryPath(repository)}/_manifests/tags`
}

export function tagPath(repository: Repository, tag: Tag): string {
  return `${tagsPath(repository)}/${tag}`
}

export function tagLinkPath(repository: Repository, tag: Tag): string {
  return `${tagPath(repository, tag)}/current/link`
}

/** Holds a folder for each digest of `algorithm` that the tag points or pointed to. */
export function tagHistoryPath(repository: Repository, tag: Tag, algorithm: string): string {
  return `${tagPath(repository, tag)}/index/${algorithm}`
}

export function tagIndexPath(repository: Repository, tag: Tag, digest: Digest): string {
  return `${tagHistoryPath(repository, tag, algorithmOf(digest))}/${hexOf(digest)}/link`
}
