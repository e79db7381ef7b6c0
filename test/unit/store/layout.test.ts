import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { digestOf, hexOf } from '../../../src/oci/digest.ts'
import * as layout from '../../../src/store/layout.ts'
import { repository, tag } from '../../conformance/store.ts'

const sha256 = digestOf(Buffer.alloc(0))
const sha512 = digestOf(Buffer.alloc(0), 'sha512')
const hex = hexOf(sha256)
const root = 'docker/registry/v2'

describe('layout', () => {
  const repo = repository('acme/tools/app')
  const cases: readonly (readonly [string, string, string])[] = [
    ['a blob', layout.blobPath(sha256), `${root}/blobs/sha256/e3/${hex}/data`],
    ['a sha512 blob', layout.blobPath(sha512), `${root}/blobs/sha512/cf/${hexOf(sha512)}/data`],
    [
      'a blob link',
      layout.linkPath(repo, 'blob', sha256),
      `${root}/repositories/acme/tools/app/_layers/sha256/${hex}/link`,
    ],
    [
      'a revision link',
      layout.linkPath(repo, 'manifest', sha256),
      `${root}/repositories/acme/tools/app/_manifests/revisions/sha256/${hex}/link`,
    ],
    [
      'a revoked link',
      layout.revokedPath(repo, 'manifest', sha256),
      `${root}/repositories/acme/tools/app/_manifests/revisions/sha256/${hex}/link.revoked`,
    ],
    [
      'a media type',
      layout.mediaTypePath(repo, sha256),
      `${root}/repositories/acme/tools/app/_manifests/revisions/sha256/${hex}/mediatype`,
    ],
    [
      'a tag',
      layout.tagLinkPath(repo, tag('1.2')),
      `${root}/repositories/acme/tools/app/_manifests/tags/1.2/current/link`,
    ],
    [
      "a tag's history",
      layout.tagIndexPath(repo, tag('1.2'), sha256),
      `${root}/repositories/acme/tools/app/_manifests/tags/1.2/index/sha256/${hex}/link`,
    ],
    ['an incoming body', layout.incomingPath(sha256), `incoming/sha256-${hex}`],
    ['its map', layout.mapPath(sha512), `incoming/sha512-${hexOf(sha512)}.map`],
    ['its note', layout.notePath(sha512), `incoming/sha512-${hexOf(sha512)}.note`],
    ['quarantined bytes', layout.quarantinePath(sha256), `quarantine/sha256-${hex}`],
  ]
  for (const [what, actual, expected] of cases) {
    it(`${what} lies where a stock registry or our comment says`, () => assert.equal(actual, expected))
  }
})
