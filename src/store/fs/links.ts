/** Links of one namespace: which repository may serve which digest, and where its tags point. */
import { lstat, rename, rm, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { GatewayError } from '../../errors.ts'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import type { Tag } from '../../oci/reference.ts'
import type { Repository } from '../../oci/repository.ts'
import { blobPath, linkPath, mediaTypePath, revokedPath, tagIndexPath, tagLinkPath, tagPath } from '../layout.ts'
import type { LinkKind, LinkState } from '../store.ts'
import { errnoOf, isAbsence, orAbsent, storeError } from './fs-error.ts'
import type { GroupCommit } from './group-commit.ts'
import { readSmallFile, removeFile, writeSmallFile, type SmallFileWriter } from './small-file.ts'

export interface LinksOptions {
  readonly root: string
  readonly writer: SmallFileWriter
  readonly group: GroupCommit
}

/** A sha512 digest in full is 135 bytes. */
const MAX_LINK_BYTES = 135
const MAX_MEDIA_TYPE_BYTES = 255
// RFC 6838 section 4.2, without parameters.
const MEDIA_TYPE = /^[A-Za-z0-9][\w!#$&^.+-]{0,126}\/[A-Za-z0-9][\w!#$&^.+-]{0,126}$/

export class Links {
  readonly #options: LinksOptions

  constructor(options: LinksOptions) {
    this.#options = options
  }

  /**
   * A revocation stands above a link: a stock registry that shares the folder may write the link again. The path says
   * the digest already, so a link's length stands for its content: a crash leaves it empty or short, never another one.
   */
  async read(repository: Repository, kind: LinkKind, digest: Digest): Promise<LinkState> {
    const [link, revoked] = await Promise.all([
      this.#sizeOf(linkPath(repository, kind, digest)),
      this.#sizeOf(revokedPath(repository, kind, digest)),
    ])
    if (revoked !== undefined) return 'revoked'
    return link === digest.length ? 'linked' : 'absent'
  }

  async write(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    const [state, bytes] = await Promise.all([this.read(repository, kind, digest), this.#sizeOf(blobPath(digest))])
    if (bytes === undefined) {
      throw new GatewayError('STORE_FAILED', `link ${repository}@${digest}: its bytes are not in ${this.#options.root}`)
    }
    if (state === 'linked') return
    await this.#writeDigest(linkPath(repository, kind, digest), digest)
    // The link first: a crash in between leaves it revoked, which only costs a question to the upstream.
    if (state === 'revoked') await this.#remove(revokedPath(repository, kind, digest))
  }

  async revoke(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    const from = this.#absolute(linkPath(repository, kind, digest))
    const to = this.#absolute(revokedPath(repository, kind, digest))
    try {
      await rename(from, to)
    } catch (error) {
      if (isAbsence(error)) return
      throw storeError('revoke', from, error)
    }
    void this.#options.group.add(to, 'name')
  }

  /** Removes a link and what stands beside it, and the folder it stood in. */
  async remove(repository: Repository, kind: LinkKind, digest: Digest): Promise<void> {
    const link = linkPath(repository, kind, digest)
    const beside = kind === 'manifest' ? [mediaTypePath(repository, digest)] : []
    for (const path of [link, revokedPath(repository, kind, digest), ...beside]) await this.#remove(path)
    await this.#options.group.removeFolder(dirname(this.#absolute(link)))
  }

  /** Sets the time of a manifest's link, whichever state it is in. */
  async touch(repository: Repository, digest: Digest, at: number): Promise<void> {
    for (const path of [linkPath(repository, 'manifest', digest), revokedPath(repository, 'manifest', digest)]) {
      const absolute = this.#absolute(path)
      await orAbsent('set the time of', absolute, utimes(absolute, at / 1000, at / 1000))
    }
  }

  /** The media type kept beside a revision; undefined when there is none or it is no media type. */
  async readMediaType(repository: Repository, digest: Digest): Promise<string | undefined> {
    const bytes = await readSmallFile(this.#absolute(mediaTypePath(repository, digest)), MAX_MEDIA_TYPE_BYTES)
    const text = bytes?.toString('latin1')
    return text !== undefined && MEDIA_TYPE.test(text) ? text : undefined
  }

  /** Keeps `mediaType` beside the revision; undefined removes what an earlier answer left. */
  async writeMediaType(repository: Repository, digest: Digest, mediaType: string | undefined): Promise<void> {
    const path = mediaTypePath(repository, digest)
    if (mediaType === undefined) return this.#remove(path)
    if (!MEDIA_TYPE.test(mediaType)) {
      throw new GatewayError('STORE_FAILED', `store ${repository}@${digest}: its media type is malformed`)
    }
    if ((await this.readMediaType(repository, digest)) !== mediaType) await this.#write(path, mediaType)
  }

  async readTag(repository: Repository, tag: Tag): Promise<Digest | undefined> {
    return this.#readDigest(tagLinkPath(repository, tag))
  }

  async writeTag(repository: Repository, tag: Tag, digest: Digest): Promise<void> {
    const state = await this.read(repository, 'manifest', digest)
    if (state !== 'linked') {
      throw new GatewayError('STORE_FAILED', `tag ${repository}:${tag}: its manifest ${digest} is ${state}, not linked`)
    }
    const current = await this.readTag(repository, tag)
    if (current === digest) return
    await this.#writeDigest(tagIndexPath(repository, tag, digest), digest)
    await this.#writeDigest(tagLinkPath(repository, tag), digest)
  }

  async removeTag(repository: Repository, tag: Tag): Promise<void> {
    const path = this.#absolute(tagPath(repository, tag))
    await this.#remove(tagLinkPath(repository, tag))
    try {
      await rm(path, { recursive: true, force: true })
    } catch (error) {
      // Somebody writes the tag anew at this moment: then its history stays.
      if (!isAbsence(error) && errnoOf(error) !== 'ENOTEMPTY') throw storeError('remove', path, error)
    }
    void this.#options.group.add(dirname(path), 'name')
  }

  /** Bytes of a regular file; undefined when there is none. */
  async #sizeOf(path: string): Promise<number | undefined> {
    const absolute = this.#absolute(path)
    const stat = await orAbsent('look up', absolute, lstat(absolute))
    return stat?.isFile() === true ? stat.size : undefined
  }

  async #readDigest(path: string): Promise<Digest | undefined> {
    const bytes = await readSmallFile(this.#absolute(path), MAX_LINK_BYTES)
    return bytes && parseDigest(bytes.toString('latin1'))
  }

  /** A link holds the digest and no newline: a stock registry parses the whole content. */
  #writeDigest(path: string, digest: Digest): Promise<void> {
    return this.#write(path, digest)
  }

  async #write(path: string, content: string): Promise<void> {
    const absolute = this.#absolute(path)
    await this.#options.group.room()
    await writeSmallFile(this.#options.writer, absolute, Buffer.from(content, 'latin1'))
    void this.#options.group.add(absolute, 'name')
  }

  #remove(path: string): Promise<void> {
    return removeFile(this.#absolute(path))
  }

  #absolute(path: string): string {
    return join(this.#options.root, path)
  }
}
