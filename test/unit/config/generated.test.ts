import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { gatewayJsonSchema, knownKeys, type JsonSchema, upstreamJsonSchema } from '../../../src/config/json-schema.ts'
import { fillTables, keyRows } from '../../../src/config/key-tables.ts'
import { GATEWAY_WITHOUT_EFFECT, UPSTREAM_WITHOUT_EFFECT } from '../../../src/config/not-enforced.ts'
import type { KeyPath } from '../../../src/config/source.ts'
import { generatedFiles } from '../../../src/config/write-schemas.ts'
import { SHIPPED } from './configuration.ts'

const ROOT = join(import.meta.dirname, '../../..')

describe('generated files', () => {
  for (const { path, content } of generatedFiles(ROOT)) {
    it(`${path.slice(ROOT.length + 1)} is up to date (else run: node src/config/write-schemas.ts)`, () => {
      assert.equal(readFileSync(path, 'utf8'), content)
    })
  }

  it('every shipped upstream names the schema that editors check it by', () => {
    for (const file of readdirSync(SHIPPED)) {
      const [, schema = ''] =
        /^# yaml-language-server: \$schema=(\S+)\n/.exec(readFileSync(join(SHIPPED, file), 'utf8')) ?? []
      assert.equal(join(SHIPPED, schema), join(ROOT, 'src/config/upstream.schema.json'), file)
    }
  })
})

describe('the JSON Schema', () => {
  it('describes every key', () => {
    const rows = [...keyRows(gatewayJsonSchema()), ...keyRows(upstreamJsonSchema())]
    assert.deepEqual(
      rows.filter(({ description }) => description === ''),
      [],
    )
    assert.ok(rows.length > 70)
  })

  it('requires nothing but url, so that defaults stay optional', () => {
    assert.equal(gatewayJsonSchema()['required'], undefined)
    assert.deepEqual(upstreamJsonSchema()['required'], ['url'])
  })

  it('knows the keys of sections, of lists and of lists written as their only entry', () => {
    const upstream = upstreamJsonSchema()
    assert.deepEqual(knownKeys(upstream, ['routes']), ['hosts', 'port', 'prefix'])
    assert.deepEqual(knownKeys(upstream, ['auth', 0]), ['username', 'password', 'helper', 'repositories'])
    assert.deepEqual(knownKeys(upstream, ['url', 1]), ['url', 'capabilities'])
    assert.deepEqual(knownKeys(upstream, ['offline', 'x']), [])
  })
})

describe('what is not enforced yet', () => {
  const marked = (schema: JsonSchema): string[] => {
    return keyRows(schema).flatMap(({ key, description }) => (/Not enforced yet/.test(description) ? [key] : []))
  }
  const dotted = (paths: readonly KeyPath[]): string[] => paths.map((path) => path.join('.'))

  it('is called so in the documentation, and nothing else is', () => {
    assert.deepEqual(marked(gatewayJsonSchema()).toSorted(), dotted(GATEWAY_WITHOUT_EFFECT).toSorted())
    assert.deepEqual(marked(upstreamJsonSchema()).toSorted(), dotted(UPSTREAM_WITHOUT_EFFECT).toSorted())
  })
})

describe('the documentation', () => {
  it('names in its tables exactly the keys there are', () => {
    const text = readFileSync(join(ROOT, 'docs/configuration.md'), 'utf8')
    const documented = [...text.matchAll(/^\| `([^`]+)` \|/gm)].map(([, key]) => key)
    const known = [...keyRows(gatewayJsonSchema()), ...keyRows(upstreamJsonSchema())].map(({ key }) => key)
    assert.deepEqual(documented, known)
  })

  it('is not filled for a table that has no schema', () => {
    assert.throws(() => fillTables('<!-- keys: other -->\n<!-- end -->', {}), /no schema is called other/)
  })
})
