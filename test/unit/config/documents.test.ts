import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { TestConfiguration } from './configuration.ts'

const ROOT = join(import.meta.dirname, '../../..')
/** Environment in which every variable that an example names is set. */
const ANYTHING = new Proxy<Record<string, string>>({}, { get: () => 'x' })

/** The YAML blocks of a page that begin by the name of their file. */
function examplesOf(page: string): { readonly file: string; readonly text: string }[] {
  const blocks = readFileSync(join(ROOT, page), 'utf8').matchAll(/```yaml\n# (\S+\.yaml)\n([\s\S]*?)```/g)
  return [...blocks].map(([, file = '', text = '']) => ({ file, text }))
}

for (const page of ['README.md', 'docs/configuration.md']) {
  describe(`the examples of ${page}`, () => {
    const examples = examplesOf(page)
    it('are found', () => assert.ok(examples.length >= 2))
    for (const [index, { file, text }] of examples.entries()) {
      it(`${index + 1}: ${file} is a configuration without problems, the files it names given`, () => {
        const hub = { 'upstreams.d/docker.io.yaml': 'url: https://registry-1.docker.io' }
        using folder = new TestConfiguration({
          ...hub,
          'entrepot.yaml': 'clients: { htpasswd: given }',
          [file]: text.replaceAll(/(?<![\w.])(\.|\/etc|\/run)\/[\w./-]+/g, 'given'),
          given: `ci:$2y$04$${'x'.repeat(53)}`,
          'upstreams.d/given': 'x',
        })
        const { problems } = folder.load({ env: ANYTHING })
        assert.deepEqual(problems, [])
      })
    }
  })
}

describe('links', () => {
  for (const page of ['README.md', 'docs/configuration.md']) {
    it(`of ${page} lead to files of the project`, () => {
      const text = readFileSync(join(ROOT, page), 'utf8')
      for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
        const path = join(ROOT, page === 'README.md' ? '.' : 'docs', target)
        assert.ok(readable(path), `${page} names ${target}`)
      }
    })
  }
})

function readable(path: string): boolean {
  try {
    readFileSync(path)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EISDIR'
  }
}
