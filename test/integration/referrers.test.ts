/** Referrers by the API and by the tag scheme behind it, filtered, in pages, and without the upstream. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Answer } from '../support/client.ts'
import { startPair, type GatewayPair, type PairOptions } from '../support/gateway-pair.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { descriptorOf, indexOf, tinyArtifact, tinyImage } from '../support/tiny-image.ts'

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const image = tinyImage({ seed: 'subject', repository: 'acme/app', tag: '1' })
const sbom = tinyArtifact({ seed: 'sbom', repository: 'acme/app', subject: image.root, artifactType: 'example/sbom' })
const seal = tinyArtifact({ seed: 'seal', repository: 'acme/app', subject: image.root, artifactType: 'example/seal' })
const SUBJECT = `acme/app/referrers/${image.root.digest}`

async function offer(options: PairOptions = {}): Promise<GatewayPair> {
  const pair = await startPair(options)
  pair.registry.load(image)
  for (const { manifests, blobs } of [sbom, seal]) pair.registry.repository('acme/app').add(...manifests, ...blobs)
  return pair
}

function digests(answer: Answer): string[] {
  assert.equal(answer.status, 200)
  assert.equal(answer.headers['content-type'], OCI_INDEX)
  const parsed = JSON.parse(answer.body.toString()) as { readonly manifests: readonly { readonly digest: string }[] }
  return parsed.manifests.map(({ digest }) => digest).sort()
}

const BOTH = [sbom.root.digest, seal.root.digest].sort()

test('the API lists what refers to a manifest, with or without filter, whoever filters', async () => {
  for (const filters of [true, false]) {
    await using pair = await offer({ registry: { referrers: { filters } } })
    const all = await pair.get(SUBJECT)
    assert.deepEqual(digests(all), BOTH)
    assert.equal(all.headers['oci-filters-applied'], undefined)
    const some = await pair.get(`${SUBJECT}?artifactType=example/sbom`)
    assert.deepEqual(digests(some), [sbom.root.digest])
    assert.equal(some.headers['oci-filters-applied'], 'artifactType')
    assert.deepEqual(digests(await pair.get(`${SUBJECT}?artifactType=none`)), [])
  }
})

test('an unknown digest has an empty list, a malformed one is 400', async () => {
  await using pair = await offer()
  assert.deepEqual(digests(await pair.get(`acme/app/referrers/sha256:${'0'.repeat(64)}`)), [])
  assert.equal((await pair.get('acme/app/referrers/sha256:short')).status, 400)
})

test('without the API the tag scheme answers, and no tag means no referrers', async () => {
  await using pair = await offer({ registry: { referrers: 'off' } })
  const artifacts = [sbom, seal].map((each) => ({
    ...descriptorOf(each.root),
    artifactType: artifactTypeOf(each.root),
  }))
  assert.deepEqual(digests(await pair.get(`acme/app/referrers/${sbom.root.digest}`)), [])
  pair.registry.repository('acme/app').tag(image.root.digest.replace(':', '-'), indexOf(artifacts))
  assert.deepEqual(digests(await pair.get(SUBJECT)), BOTH)
  const some = await pair.get(`${SUBJECT}?artifactType=example/seal`)
  assert.deepEqual(digests(some), [seal.root.digest])
})

test('pages are linked under the path and query they were asked by', async () => {
  await using pair = await offer({ registry: { referrers: { pageSize: 1 } } })
  const seen: string[] = []
  let path: string | undefined = `origin/${SUBJECT}?ns=origin&extra=kept`
  for (let pages = 0; path !== undefined && pages < 5; pages++) {
    const page: Answer = await pair.get(path)
    seen.push(...digests(page))
    const link = /^<(.+)>; rel="next"$/.exec(String(page.headers['link'] ?? ''))?.[1]
    if (link !== undefined) assert.match(link, new RegExp(`^/v2/origin/${SUBJECT}\\?(?=.*ns=origin)(?=.*extra=kept)`))
    path = link?.slice('/v2/'.length)
  }
  assert.deepEqual(seen.sort(), BOTH)
})

test('a list is asked again after half a minute: what is signed later is seen', async () => {
  const clock = new ManualClock()
  await using pair = await offer({ clock })
  assert.deepEqual(digests(await pair.get(SUBJECT)), BOTH)
  const later = tinyArtifact({ seed: 'later', repository: 'acme/app', subject: image.root })
  pair.registry.repository('acme/app').add(...later.manifests, ...later.blobs)
  assert.deepEqual(digests(await pair.get(SUBJECT)), BOTH)
  clock.advance(31_000)
  assert.deepEqual(digests(await pair.get(SUBJECT)), [...BOTH, later.root.digest].sort())
})

test('without the upstream the last list is given', async () => {
  const clock = new ManualClock()
  await using pair = await offer({ clock })
  assert.deepEqual(digests(await pair.get(SUBJECT)), BOTH)
  clock.advance(31_000)
  await pair.registry.close()
  const stale = await pair.get(SUBJECT)
  assert.deepEqual(digests(stale), BOTH)
  assert.equal(stale.headers['cache-status'], 'entrepot; hit; detail=stale')
})

test('without the upstream and without a list what is held is listed; with neither it is 503, never empty', async () => {
  await using pair = await offer()
  await pair.get(`acme/app/manifests/${sbom.root.digest}`)
  await pair.registry.close()
  assert.deepEqual(digests(await pair.get(SUBJECT)), [sbom.root.digest])
  assert.deepEqual(digests(await pair.get(`${SUBJECT}?artifactType=example/seal`)), [])
  assert.equal((await pair.get(`acme/app/referrers/${sbom.root.digest}`)).status, 503)
})

function artifactTypeOf({ bytes }: { readonly bytes: Uint8Array }): string {
  return String((JSON.parse(Buffer.from(bytes).toString()) as { readonly artifactType: unknown }).artifactType)
}
