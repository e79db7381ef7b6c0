import assert from 'node:assert/strict'
import { test } from 'node:test'
import { codeOf } from '../../../src/errors.ts'
import { digestOf } from '../../../src/oci/digest.ts'
import {
  blobHeaders,
  cacheStatus,
  etagOf,
  manifestHeaders,
  matchesEtag,
  nextLink,
  notModifiedHeaders,
  parsePage,
} from '../../../src/registry/headers.ts'

const bytes = Buffer.from('{}')
const digest = digestOf(bytes)
const other = digestOf(Buffer.from('x'))

test('If-None-Match matches the digest quoted, bare, weak, in a list, and by a star', () => {
  for (const value of [etagOf(digest), digest, `W/"${digest}"`, `"x", ${etagOf(digest)}`, `${other},${digest}`, '*']) {
    assert.equal(matchesEtag(value, digest), true, value)
  }
  for (const value of [undefined, '', etagOf(other), other, `"${digest}`, `"${digest}x"`, 'W/']) {
    assert.equal(matchesEtag(value, digest), false, String(value))
  }
})

test('a manifest goes out with its exact type, length and digest', () => {
  const manifest = { digest, mediaType: 'application/vnd.oci.image.index.v1+json', bytes }
  assert.deepEqual(manifestHeaders(manifest, { byDigest: true }), {
    'docker-distribution-api-version': 'registry/2.0',
    'x-content-type-options': 'nosniff',
    'content-type': 'application/vnd.oci.image.index.v1+json',
    'content-length': '2',
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'cache-control': 'max-age=31536000, immutable',
  })
  assert.equal(manifestHeaders(manifest, { byDigest: false })['cache-control'], 'no-cache')
})

test('a blob invites ranges, and its 304 carries validators without a length', () => {
  const headers = blobHeaders({ digest, size: 2 })
  assert.equal(headers['accept-ranges'], 'bytes')
  assert.equal(headers['content-type'], 'application/octet-stream')
  assert.deepEqual(Object.keys(notModifiedHeaders(headers)).sort(), [
    'cache-control',
    'docker-content-digest',
    'docker-distribution-api-version',
    'etag',
    'x-content-type-options',
  ])
})

test('Cache-Status says hit or forwarded, never both', () => {
  assert.equal(cacheStatus('hit'), 'entrepot; hit')
  assert.equal(cacheStatus('miss'), 'entrepot; fwd=miss')
  for (const outcome of ['hit', 'miss', 'stale', 'revalidated', 'joined', 'negative', 'bypass'] as const) {
    assert.match(cacheStatus(outcome), /^entrepot; (hit|fwd=[a-z]+)(; (detail=[a-z]+|collapsed))?$/)
  }
})

test('a page size is clamped and a bad one refused', () => {
  const page = (query: string) => parsePage(new URLSearchParams(query))
  assert.deepEqual(page(''), { n: undefined, last: undefined })
  assert.deepEqual(page('n=0'), { n: 0, last: undefined })
  assert.deepEqual(page('n=5&last=a'), { n: 5, last: 'a' })
  assert.deepEqual(page('n=1000000000&last='), { n: 1000, last: undefined })
  for (const bad of [
    'n=-1',
    'n=',
    'n=x',
    'n=1.5',
    'n=1e3',
    'n=%201',
    'n=1&n=2',
    `n=${'9'.repeat(40)}`,
    `last=${'x'.repeat(600)}`,
  ]) {
    assert.throws(
      () => page(bad),
      (error) => codeOf(error) === 'PAGINATION_INVALID',
      bad,
    )
  }
})

test('a Link keeps the requested path, ns and unknown parameters, and takes the next page over them', () => {
  const link = nextLink(
    '/ghcr.io/v2/a/tags/list',
    new URLSearchParams('n=5&ns=ghcr.io&x=1'),
    new URLSearchParams('last=b c&n=5&ns=evil'),
  )
  assert.equal(link, '</ghcr.io/v2/a/tags/list?ns=ghcr.io&x=1&last=b+c&n=5>; rel="next"')
})
