import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { formatAge, formatBytes } from '../../../src/cli/amounts.ts'
import { parseImageName, parsePinName } from '../../../src/cli/image-name.ts'
import { codeOf } from '../../../src/errors.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

describe('an image on the command line', () => {
  const cases: readonly (readonly [string, object])[] = [
    ['ghcr.io', { upstream: 'ghcr.io' }],
    ['localhost:5000', { upstream: 'localhost:5000' }],
    ['ghcr.io/acme/app', { upstream: 'ghcr.io', repository: 'acme/app' }],
    ['ghcr.io/acme/app:1.2', { upstream: 'ghcr.io', repository: 'acme/app', tag: '1.2' }],
    [`ghcr.io/acme/app@${DIGEST}`, { upstream: 'ghcr.io', repository: 'acme/app', digest: DIGEST }],
    [`ghcr.io/acme/app:1.2@${DIGEST}`, { upstream: 'ghcr.io', repository: 'acme/app', digest: DIGEST }],
    ['localhost:5000/app:1', { upstream: 'localhost:5000', repository: 'app', tag: '1' }],
    ['docker.io/alpine:3', { upstream: 'docker.io', repository: 'library/alpine', tag: '3' }],
    ['docker.io/grafana/loki', { upstream: 'docker.io', repository: 'grafana/loki' }],
  ]
  for (const [text, parsed] of cases) it(text, () => assert.deepEqual(parseImageName(text), parsed))

  for (const text of ['/app', 'ghcr.io/', 'ghcr.io/app:', 'ghcr.io/app@', 'ghcr.io/:1']) {
    it(`${text} is refused`, () =>
      assert.throws(
        () => parseImageName(text),
        (error) => codeOf(error) === 'BAD_REQUEST',
      ))
  }

  it('a pin keeps its stars', () => {
    assert.deepEqual(parsePinName('docker.io/**'), { upstream: 'docker.io', pattern: '**' })
    assert.deepEqual(parsePinName('docker.io/alpine:*'), { upstream: 'docker.io', pattern: 'library/alpine:*' })
    assert.deepEqual(parsePinName('docker.io/alpine:3'), { upstream: 'docker.io', pattern: 'library/alpine:3' })
    assert.throws(
      () => parsePinName('docker.io'),
      (error) => codeOf(error) === 'BAD_REQUEST',
    )
  })
})

it('sizes and ages are short', () => {
  assert.deepEqual([0, 999, 1000, 1536, 10 * 1024, 5.5 * 1024 ** 3].map(formatBytes), [
    '0 B',
    '999 B',
    '1.0 KiB',
    '1.5 KiB',
    '10 KiB',
    '5.5 GiB',
  ])
  const now = Date.UTC(2026, 0, 10)
  const ago = (ms: number): string => formatAge(new Date(now - ms).toISOString(), now)
  assert.deepEqual([-5, 30_000, 60_000, 3 * 3_600_000, 9 * 86_400_000].map(ago), [
    'just now',
    'just now',
    '1 minute ago',
    '3 hours ago',
    '9 days ago',
  ])
})
