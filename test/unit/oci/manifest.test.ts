import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parseDigest, type Digest } from '../../../src/oci/digest.ts'
import {
  childrenOf,
  deriveMediaType,
  isManifestType,
  manifestTypeFor,
  MAX_MANIFEST_BYTES,
  parseManifest,
  type ParsedManifest,
} from '../../../src/oci/manifest.ts'
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1,
  DOCKER_SCHEMA1_SIGNED,
  OCI_ARTIFACT,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../../src/oci/media-types.ts'

const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'
const CONFIG = 'application/vnd.oci.image.config.v1+json'

const sha = (seed: number): string => `sha256:${seed.toString(16).padStart(64, '0')}`
const layer = { mediaType: LAYER, digest: sha(1), size: 100 }
const config = { mediaType: CONFIG, digest: sha(2), size: 20 }
const child = { mediaType: OCI_MANIFEST, digest: sha(3), size: 300 }
const image = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] }
const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [child] }
const schema1 = { schemaVersion: 1, name: 'a', tag: 'b', fsLayers: [], history: [] }

const text = (document: string): Uint8Array => new TextEncoder().encode(document)
const json = (document: unknown): Uint8Array => text(JSON.stringify(document))
const without = <T extends object>(document: T, key: keyof T): Partial<T> =>
  Object.fromEntries(Object.entries(document).filter(([name]) => name !== key)) as Partial<T>

function edges(parsed: ParsedManifest | undefined): string[] {
  assert.ok(parsed)
  return childrenOf(parsed).map((entry) => `${entry.role} ${entry.digest.slice(-1)}`)
}

describe('parseManifest reads', () => {
  const table: [name: string, document: unknown, kind: string, children: string[]][] = [
    ['an OCI image', image, 'image', ['config 2', 'layer 1']],
    ['a Docker image', { ...image, mediaType: DOCKER_MANIFEST }, 'image', ['config 2', 'layer 1']],
    ['an image without mediaType', without(image, 'mediaType'), 'image', ['config 2', 'layer 1']],
    ['an image with an empty mediaType', { ...image, mediaType: '' }, 'image', ['config 2', 'layer 1']],
    ['an image without config', without(image, 'config'), 'image', ['layer 1']],
    ['an image whose layers are null', { ...image, layers: null }, 'image', ['config 2']],
    ['an image with a null manifests member', { ...image, manifests: null }, 'image', ['config 2', 'layer 1']],
    ['an image with a subject', { ...image, subject: child }, 'image', ['config 2', 'layer 1', 'subject 3']],
    ['an index', index, 'index', ['manifest 3']],
    ['a Docker list', { ...index, mediaType: DOCKER_LIST }, 'index', ['manifest 3']],
    ['an index without mediaType', without(index, 'mediaType'), 'index', ['manifest 3']],
    ['an empty index', { ...index, manifests: [] }, 'index', []],
    ['an index of an index', { ...index, manifests: [{ ...child, mediaType: OCI_INDEX }] }, 'index', ['manifest 3']],
    [
      'a BuildKit cache, whose index names blobs',
      { ...index, manifests: [layer, { ...config, mediaType: 'application/vnd.buildkit.cacheconfig.v0' }] },
      'index',
      ['layer 1', 'layer 2'],
    ],
    [
      'an index of manifests of a type we do not know',
      { ...index, manifests: [{ ...child, mediaType: 'application/vnd.cncf.oras.artifact.manifest.v1+json' }] },
      'index',
      ['manifest 3'],
    ],
    [
      'the withdrawn artifact manifest',
      { mediaType: OCI_ARTIFACT, artifactType: 'a/b', blobs: [layer], subject: child },
      'image',
      ['layer 1', 'subject 3'],
    ],
    ['an artifact manifest without blobs', { mediaType: OCI_ARTIFACT, subject: child }, 'image', ['subject 3']],
    [
      'a foreign layer with urls',
      { ...image, layers: [{ ...layer, urls: ['https://elsewhere.example/x'] }] },
      'image',
      ['config 2', 'layer 1'],
    ],
    ['schema 1', schema1, 'schema1', []],
    ['schema 1 with its type', { ...schema1, mediaType: DOCKER_SCHEMA1 }, 'schema1', []],
    [
      'sha512 digests',
      { ...image, layers: [{ ...layer, digest: `sha512:${'1'.repeat(128)}` }] },
      'image',
      ['config 2', 'layer 1'],
    ],
  ]
  for (const [name, document, kind, children] of table) {
    test(name, () => {
      const parsed = parseManifest(json(document))
      assert.equal(parsed?.kind, kind)
      assert.deepEqual(edges(parsed), children)
    })
  }

  test('what a descriptor says, and leaves out what is malformed but decides nothing', () => {
    const platform = { os: 'linux', architecture: 'arm64', variant: 'v8' }
    const document = {
      ...index,
      artifactType: 'application/x',
      annotations: { a: 'b', n: 1 },
      manifests: [
        { ...child, platform, annotations: { c: 'd' }, artifactType: 'application/y', size: 0 },
        { ...child, platform: { os: 'linux' } },
      ],
    }
    const digest = parseDigest(sha(3))
    assert.deepEqual(parseManifest(json(document)), {
      kind: 'index',
      mediaType: OCI_INDEX,
      artifactType: 'application/x',
      annotations: { a: 'b' },
      subject: undefined,
      manifests: [
        {
          mediaType: OCI_MANIFEST,
          digest,
          size: 0,
          platform,
          annotations: { c: 'd' },
          artifactType: 'application/y',
        },
        { mediaType: OCI_MANIFEST, digest, size: 300 },
      ],
    })
  })

  test('own members only', () => {
    assert.equal(parseManifest(text('{"__proto__":{"layers":[]}}')), undefined)
    const parsed = parseManifest(text(`{"layers":[],"annotations":{"__proto__":"x","constructor":"y"}}`))
    assert.ok(parsed?.kind === 'image')
    assert.deepEqual(Object.entries(parsed.annotations ?? {}), [
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
    assert.equal(({} as Record<string, unknown>)['x'], undefined)
  })
})

describe('parseManifest refuses', () => {
  const nested = (depth: number): string => `{"layers":[],"x":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`
  const table: [name: string, bytes: Uint8Array][] = [
    ['nothing', text('')],
    ['no JSON', text('<html>')],
    ['a list', json([image])],
    ['a number', json(1)],
    ['null', json(null)],
    ['an object of no known kind', json({ schemaVersion: 2 })],
    ['blobs in a document that does not say what it is', json({ blobs: [layer] })],
    ['manifests beside layers', json({ schemaVersion: 2, manifests: [], layers: [] })],
    ['manifests beside config', json({ ...index, config })],
    ['layers beside blobs', json({ ...image, blobs: [] })],
    ['schema 1 with layers', json({ ...schema1, layers: [] })],
    ['an index that calls itself an image', json({ ...index, mediaType: OCI_MANIFEST })],
    ['an image that calls itself an index', json({ ...image, mediaType: DOCKER_LIST })],
    ['members that differ by case only', json({ ...image, Manifests: [] })],
    ['members that Go folds to one', text(`{"schemaVersion":2,"manifests":[],"layer\u017F":[]}`)],
    ['a mediaType that is no string', json({ ...image, mediaType: 1 })],
    ['a mediaType with a line end', json({ ...image, mediaType: 'a/b\r\nset-cookie: x' })],
    ['layers that are no list', json({ ...image, layers: {} })],
    ['a layer that is null', json({ ...image, layers: [null] })],
    ['a descriptor without type', json({ ...image, layers: [without(layer, 'mediaType')] })],
    ['a descriptor without digest', json({ ...image, layers: [without(layer, 'digest')] })],
    ['an upper-case digest', json({ ...image, layers: [{ ...layer, digest: `sha256:${'A'.repeat(64)}` }] })],
    ['an unregistered algorithm', json({ ...image, layers: [{ ...layer, digest: `md5:${'a'.repeat(32)}` }] })],
    ['a negative size', json({ ...image, layers: [{ ...layer, size: -1 }] })],
    ['a broken size', json({ ...image, layers: [{ ...layer, size: 1.5 }] })],
    ['a size beyond 2^53', text(JSON.stringify(image).replace('"size":100', '"size":9007199254740993'))],
    ['a size as text', json({ ...image, layers: [{ ...layer, size: '1' }] })],
    ['a broken config', json({ ...image, config: {} })],
    ['a broken subject', json({ ...image, subject: [] })],
    ['text after the document', text(`${JSON.stringify(image)}{}`)],
    ['a byte order mark', Buffer.concat([Uint8Array.of(0xef, 0xbb, 0xbf), json(image)])],
    ['UTF-16', Buffer.from(JSON.stringify(image), 'utf16le')],
    ['broken UTF-8', Buffer.concat([text('{"layers":[],"x":"'), Uint8Array.of(0xc3, 0x28), text('"}')])],
    ['nesting deeper than 32', text(nested(33))],
    ['a list of more than 10,000', text(`{"layers":[],"x":[${'0,'.repeat(10_000)}0]}`)],
    ['more than 4 MiB', text(`{"layers":[]${' '.repeat(MAX_MANIFEST_BYTES)}}`)],
  ]
  for (const [name, bytes] of table) test(name, () => assert.equal(parseManifest(bytes), undefined))

  test('but takes what lies just within the limits', () => {
    assert.ok(parseManifest(text(nested(32))))
    assert.ok(parseManifest(text(`{"layers":[],"x":[${'0,'.repeat(9_999)}0]}`)))
    assert.ok(parseManifest(text('{"layers":[]}'.padEnd(MAX_MANIFEST_BYTES))))
    assert.ok(parseManifest(text('{"layers":[],"x":"[[[\\"{{,,,\\\\"}')))
  })
})

test('deriveMediaType says what a stock registry would', () => {
  const table: [unknown, string | undefined][] = [
    [{ ...image, mediaType: DOCKER_MANIFEST }, DOCKER_MANIFEST],
    [without(image, 'mediaType'), OCI_MANIFEST],
    [without(index, 'mediaType'), OCI_INDEX],
    [schema1, DOCKER_SCHEMA1],
    [{ ...schema1, signatures: [{}] }, DOCKER_SCHEMA1_SIGNED],
    [{ mediaType: OCI_ARTIFACT, blobs: [] }, OCI_ARTIFACT],
    [{ mediaType: 'application/vnd.future+json' }, 'application/vnd.future+json'],
    [{ schemaVersion: 2 }, undefined],
    [{ manifests: [], layers: [] }, undefined],
    ['x', undefined],
  ]
  for (const [document, expected] of table)
    assert.equal(deriveMediaType(json(document)), expected, JSON.stringify(document))
})

test('isManifestType knows the types every client asks at /manifests/', () => {
  for (const type of [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, OCI_ARTIFACT]) {
    assert.equal(isManifestType(type), true, type)
  }
  for (const type of [LAYER, CONFIG, '', 'application/json']) assert.equal(isManifestType(type), false, type)
})

describe('manifestTypeFor', () => {
  const bare = without(image, 'mediaType')
  const agreed: [name: string, contentType: string | undefined, document: unknown, mediaType: string][] = [
    ['keeps a known type that the body repeats', OCI_MANIFEST, image, OCI_MANIFEST],
    ['keeps a known type the body is silent about', DOCKER_MANIFEST, bare, DOCKER_MANIFEST],
    ['ignores parameters and case', `${OCI_INDEX.toUpperCase()}; charset=utf-8`, index, OCI_INDEX],
    ['derives from text/plain', 'text/plain; charset=utf-8', image, OCI_MANIFEST],
    ['derives from application/json', 'application/json', without(index, 'mediaType'), OCI_INDEX],
    [
      'derives from octet-stream',
      'application/octet-stream',
      { ...image, mediaType: DOCKER_MANIFEST },
      DOCKER_MANIFEST,
    ],
    ['derives when there is no header', undefined, bare, OCI_MANIFEST],
    ['derives when the header is empty', '', bare, OCI_MANIFEST],
    ['keeps an unknown +json type', 'application/vnd.future.v9+json', { a: 1 }, 'application/vnd.future.v9+json'],
    ['keeps schema 1', DOCKER_SCHEMA1_SIGNED, schema1, DOCKER_SCHEMA1_SIGNED],
    ['keeps the withdrawn artifact manifest', OCI_ARTIFACT, { mediaType: OCI_ARTIFACT, blobs: [] }, OCI_ARTIFACT],
  ]
  for (const [name, contentType, document, mediaType] of agreed) {
    test(name, () => assert.deepEqual(manifestTypeFor(contentType, json(document)), { mediaType }))
  }

  const refused: [name: string, contentType: string | undefined, bytes: Uint8Array, problem: RegExp][] = [
    [
      'header and mediaType disagree',
      OCI_MANIFEST,
      json({ ...image, mediaType: DOCKER_MANIFEST }),
      /whose mediaType is/,
    ],
    ['header and members disagree', OCI_INDEX, json(bare), /a body that is an image manifest/],
    ['an unknown type meets a known mediaType', 'application/x+json', json(image), /whose mediaType is/],
    ['the body has both kinds', OCI_INDEX, json({ manifests: [], layers: [] }), /readable in two ways/],
    ['an HTML page comes', 'text/html; charset=utf-8', text('<html>'), /HTML page/],
    ['an HTML page comes as text', 'text/plain', text('<html>'), /no manifest/],
    ['the type is no manifest’s', 'image/png', json(image), /"image\/png"/],
    ['nothing says what it is', undefined, json({}), /does not say what it is/],
    ['the known type has an empty object', OCI_MANIFEST, json({}), /none of the known kinds/],
  ]
  for (const [name, contentType, bytes, problem] of refused) {
    test(`refuses when ${name}`, () => {
      const verdict = manifestTypeFor(contentType, bytes)
      assert.ok('problem' in verdict, JSON.stringify(verdict))
      assert.match(verdict.problem, problem)
      assert.doesNotMatch(verdict.problem, /[\r\n]/)
    })
  }
})

describe('whatever the bytes', () => {
  const swallow = (bytes: Uint8Array): void => {
    const parsed = parseManifest(bytes)
    if (parsed)
      for (const { digest, size } of childrenOf(parsed)) {
        assert.equal(parseDigest(digest), digest)
        assert.ok(Number.isSafeInteger(size) && size >= 0)
      }
    const derived = deriveMediaType(bytes)
    if (parsed) assert.ok(derived)
    const verdict = manifestTypeFor(undefined, bytes)
    assert.equal('mediaType' in verdict ? verdict.mediaType : undefined, derived)
  }

  test('nothing throws on arbitrary bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), swallow), { numRuns: 500 })
  })

  test('nothing throws on arbitrary JSON', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5 }), (document) => swallow(text(document))),
      { numRuns: 500 },
    )
  })

  test('nothing throws on mutated manifests', () => {
    const seeds = [image, index, schema1, { ...image, subject: child, annotations: { a: 'b' } }].map((one) => json(one))
    const mutation = fc.tuple(fc.nat(), fc.constantFrom(...text('[]{},:"\\0n\u00ff')))
    fc.assert(
      fc.property(fc.constantFrom(...seeds), fc.array(mutation, { maxLength: 6 }), (seed, mutations) => {
        const bytes = Uint8Array.from(seed)
        for (const [at, byte] of mutations) bytes[at % bytes.length] = byte
        swallow(bytes)
      }),
      { numRuns: 1000 },
    )
  })

  test('nothing throws when members are exchanged for arbitrary values', () => {
    const member = fc.constantFrom('schemaVersion', 'mediaType', 'manifests', 'layers', 'config', 'blobs', 'subject')
    fc.assert(
      fc.property(
        fc.dictionary(member, fc.oneof(fc.jsonValue(), fc.constantFrom(1, config, [layer], [child]))),
        (document) => swallow(json(document)),
      ),
      { numRuns: 1000 },
    )
  })

  test('4 MiB of the worst there is comes to an end', () => {
    const fill = (unit: string): Uint8Array =>
      text(`{"layers":[],"x":${unit.repeat(MAX_MANIFEST_BYTES)}`.slice(0, MAX_MANIFEST_BYTES))
    const hostile = ['[', '{"a":', '"', '"\\', '\\', ',', '[[],', '"manifest ', '9', '{"1":1},'].map(fill)
    const entry = { ...child, mediaType: `application/${'manifest '.repeat(400_000)}` }
    hostile.push(json({ ...index, manifests: [entry] }))
    // Work that grows faster than the length would take hours on these.
    for (const bytes of hostile) swallow(bytes)
  })
})

test('a child keeps what its descriptor says', () => {
  const parsed = parseManifest(json(image))
  assert.ok(parsed)
  assert.deepEqual(childrenOf(parsed)[1], { ...layer, digest: parseDigest(sha(1)) as Digest, role: 'layer' })
})
