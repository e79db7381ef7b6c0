import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'

const ROOT = join(import.meta.dirname, '../..')
const ENTRY = join(ROOT, 'src/entrepot.js')
const run = promisify(execFile)

interface PackageFile {
  readonly version: string
  readonly bin: Readonly<Record<string, string>>
  readonly scripts: Readonly<Record<string, string>>
  readonly engines: { readonly node: string }
}

const packageFile: PackageFile = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

/** Runs the command as if Node had that version. */
async function runOn(version: string): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const pretend = `Object.defineProperty(process.versions, 'node', { value: '${version}' })`
  const preload = `data:text/javascript,${encodeURIComponent(pretend)}`
  try {
    const { stdout, stderr } = await run(process.execPath, ['--import', preload, ENTRY, '--version'])
    return { code: 0, out: stdout, err: stderr }
  } catch (error) {
    assert.ok(error instanceof Error && 'stderr' in error && 'code' in error)
    return { code: Number(error.code), out: '', err: String(error.stderr) }
  }
}

describe('the command that npm starts', () => {
  for (const version of ['20.19.0', '22.22.0', '24.14.9', '25.9.0']) {
    it(`says on Node ${version} which Node it needs, and how to get it`, async () => {
      const { code, err } = await runOn(version)
      assert.equal(code, 1)
      assert.match(err, /^entrepot needs Node 24\.15 or later, or 26; this is v.*\n[^]*npm rebuild node/)
    })
  }

  for (const version of ['24.15.0', '26.0.0', '27.1.0']) {
    it(`runs on Node ${version}`, async () => {
      assert.deepEqual(await runOn(version), { code: 0, out: `${packageFile.version}\n`, err: '' })
    })
  }

  it('is what package.json starts, on the Node its engines name', () => {
    assert.equal(packageFile.engines.node, '^24.15 || >=26')
    assert.deepEqual(
      [packageFile.bin['entrepot'], packageFile.scripts['start'], packageFile.scripts['entrepot']],
      ['src/entrepot.js', 'node src/entrepot.js serve', 'node src/entrepot.js'],
    )
  })
})

it('no text tells to give npm an option that npm would keep for itself', () => {
  const texts = [
    'README.md',
    'src/cli/program.ts',
    ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.md'))
      .map((name) => join('docs', name)),
  ]
  const wrong = texts.flatMap((name) =>
    [
      ...readFileSync(join(ROOT, name), 'utf8').matchAll(/npm (?:run entrepot(?! --)\b[^`\n]*|start (?!-- )-[^`\n]*)/g),
    ].map(([line]) => `${name}: ${line}`),
  )
  assert.deepEqual(wrong, [])
  assert.match(readFileSync(join(ROOT, 'README.md'), 'utf8'), /npm run entrepot -- check/)
})
