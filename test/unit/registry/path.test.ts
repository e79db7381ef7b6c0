import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseRepository } from '../../../src/oci/repository.ts'
import { parseRegistryPath } from '../../../src/registry/path.ts'

const SHA256 = `sha256:${'a'.repeat(64)}`
const SHA512 = `sha512:${'b'.repeat(128)}`

const accepted: readonly (readonly [string, object])[] = [
  ['', { kind: 'ping' }],
  ['_catalog', { kind: 'catalog' }],
  ['a/manifests/1', { kind: 'manifest', repository: 'a', reference: '1' }],
  ['library/alpine/manifests/3.20_x-Y', { kind: 'manifest', repository: 'library/alpine', reference: '3.20_x-Y' }],
  [`a/manifests/${SHA256}`, { kind: 'manifest', repository: 'a', reference: SHA256 }],
  [`a/manifests/${SHA512}`, { kind: 'manifest', repository: 'a', reference: SHA512 }],
  [`a/blobs/${SHA256}`, { kind: 'blob', repository: 'a', digest: SHA256 }],
  [`a/referrers/${SHA256}`, { kind: 'referrers', repository: 'a', digest: SHA256 }],
  ['a/tags/list', { kind: 'tags', repository: 'a' }],
  // the words of the API are legal components of names: the last one counts
  ['a/manifests/b/manifests/c', { kind: 'manifest', repository: 'a/manifests/b', reference: 'c' }],
  [`manifests/blobs/${SHA256}`, { kind: 'blob', repository: 'manifests', digest: SHA256 }],
  ['blobs/manifests/tags/list', { kind: 'tags', repository: 'blobs/manifests' }],
  ['tags/list/tags/list', { kind: 'tags', repository: 'tags/list' }],
  ['a/tags/manifests/list', { kind: 'manifest', repository: 'a/tags', reference: 'list' }],
  ['a/manifests/sha256-abc.sig', { kind: 'manifest', repository: 'a', reference: 'sha256-abc.sig' }],
  [`${'a/'.repeat(127)}b/manifests/1`, { kind: 'manifest', repository: `${'a/'.repeat(127)}b`, reference: '1' }],
]

const refused: readonly (readonly [string, string])[] = [
  // names
  ['A/manifests/1', 'NAME_INVALID'],
  ['a//b/manifests/1', 'NAME_INVALID'],
  ['/a/manifests/1', 'NAME_INVALID'],
  ['a/../b/manifests/1', 'NAME_INVALID'],
  ['../manifests/1', 'NAME_INVALID'],
  ['./a/manifests/1', 'NAME_INVALID'],
  ['a/manifests/..', 'NAME_INVALID'],
  ['a..b/manifests/1', 'NAME_INVALID'],
  ['a___b/manifests/1', 'NAME_INVALID'],
  ['-a/manifests/1', 'NAME_INVALID'],
  ['a-/manifests/1', 'NAME_INVALID'],
  ['_a/manifests/1', 'NAME_INVALID'],
  ['a:1/manifests/1', 'NAME_INVALID'],
  ['%61/manifests/1', 'NAME_INVALID'],
  ['a/manifests/%31', 'NAME_INVALID'],
  ['a%2fb/manifests/1', 'NAME_INVALID'],
  ['%2e%2e/manifests/1', 'NAME_INVALID'],
  ['a/%252e/manifests/1', 'NAME_INVALID'],
  ['a/..;/manifests/1', 'NAME_INVALID'],
  ['a\\b/manifests/1', 'NAME_INVALID'],
  ['a\0/manifests/1', 'NAME_INVALID'],
  ['\u00e9/manifests/1', 'NAME_INVALID'],
  ['<script>/manifests/1', 'NAME_INVALID'],
  [`${'a'.repeat(256)}/manifests/1`, 'NAME_INVALID'],
  [`${'a'.repeat(10_000)}/manifests/1`, 'NAME_INVALID'],
  ['manifests/1', 'NAME_INVALID'],
  ['tags/list', 'NAME_INVALID'],
  // references
  ['a/manifests/.INVALID_MANIFEST_NAME', 'MANIFEST_UNKNOWN'],
  ['a/manifests/-x', 'MANIFEST_UNKNOWN'],
  [`a/manifests/${'t'.repeat(129)}`, 'MANIFEST_UNKNOWN'],
  ['a/manifests/sha256:totallywrong', 'DIGEST_INVALID'],
  ['a/blobs/sha256:totallywrong', 'DIGEST_INVALID'],
  ['a/blobs/latest', 'DIGEST_INVALID'],
  [`a/blobs/${SHA256}0`, 'DIGEST_INVALID'],
  [`a/blobs/${SHA256.slice(0, -1)}`, 'DIGEST_INVALID'],
  [`a/blobs/sha256:${'A'.repeat(64)}`, 'DIGEST_INVALID'],
  [`a/blobs/md5:${'a'.repeat(32)}`, 'DIGEST_INVALID'],
  [`a/blobs/sha256+b64:${'a'.repeat(64)}`, 'DIGEST_INVALID'],
  [`a/referrers/sha256:x`, 'DIGEST_INVALID'],
  ['a/blobs/sha256:..%2f', 'DIGEST_INVALID'],
  ['a/referrers/sha256:%00', 'DIGEST_INVALID'],
  ['a%2f/blobs/sha256:..%2f', 'NAME_INVALID'],
  ['../a/blobs/sha256:..%2f', 'NAME_INVALID'],
  // no endpoint
  ['a', 'ENDPOINT_UNKNOWN'],
  ['a/b', 'ENDPOINT_UNKNOWN'],
  ['a/manifests/', 'ENDPOINT_UNKNOWN'],
  ['a/blobs/uploads/', 'ENDPOINT_UNKNOWN'],
  ['a/tags/lists', 'ENDPOINT_UNKNOWN'],
  ['_catalog/', 'ENDPOINT_UNKNOWN'],
  ['_catalog/x', 'ENDPOINT_UNKNOWN'],
  ['a/manifests/b/c', 'ENDPOINT_UNKNOWN'],
]

for (const [rest, expected] of accepted) {
  test(`"${rest.slice(0, 60)}" is a path`, () => assert.deepEqual(parseRegistryPath(rest), expected))
}
for (const [rest, code] of refused) {
  test(`${JSON.stringify(rest.slice(0, 60))} is refused with ${code}`, () => {
    const path = parseRegistryPath(rest)
    assert.equal(path.kind === 'problem' ? path.code : path.kind, code)
  })
}

test('what is accepted is written in the alphabet of names, whatever is thrown at it', () => {
  const piece = fc.oneof(
    fc.constantFrom(
      'manifests',
      'blobs',
      'tags',
      'list',
      'referrers',
      '..',
      '.',
      '',
      '%2e',
      'a',
      'library',
      SHA256,
      'A',
    ),
    fc.string({ maxLength: 8 }),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const path = parseRegistryPath(pieces.join('/'))
      if (!('repository' in path)) return
      assert.equal(parseRepository(path.repository), path.repository)
      assert.equal(path.repository.split('/').includes('..'), false)
      const tail = 'reference' in path ? path.reference : 'digest' in path ? path.digest : 'list'
      assert.match(tail, /^[A-Za-z0-9_][A-Za-z0-9._:-]*$/)
    }),
    { numRuns: 5000 },
  )
})
