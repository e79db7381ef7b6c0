import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { runProgram } from '../../../src/cli/program.ts'
import { TestProcess, testWorld } from './stand-ins.ts'

const ROOT = join(import.meta.dirname, '../../..')

async function run(...words: string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const world = testWorld(ROOT)
  const openRuntime = (): Promise<never> => Promise.reject(new Error('no command needs the gateway here'))
  const code = await runProgram({ arguments: words, openRuntime, world, events: new TestProcess() })
  return { code, out: world.out.text, err: world.err.text }
}

describe('the command line', () => {
  for (const words of [['--help'], ['help'], ['serve', '--help'], ['help', 'check']]) {
    it(`${words.join(' ')} prints help on standard output and exits with 0`, async () => {
      const { code, out, err } = await run(...words)
      assert.deepEqual([code, err], [0, ''])
      assert.match(out, /^Usage: entrepot/)
    })
  }

  it('--version prints the version', async () => {
    assert.deepEqual(await run('--version'), { code: 0, out: '1.2.3\n', err: '' })
  })

  const wrong: [string[], RegExp][] = [
    [[], /^Usage: entrepot/],
    [['sevre'], /unknown command 'sevre'\n\(Did you mean serve\?\)/],
    [['serve', '--confg', 'x'], /unknown option '--confg'\n\(Did you mean --config\?\)/],
    [['serve', '--config'], /argument missing/],
    [['serve', 'now'], /too many arguments/],
  ]
  for (const [words, expected] of wrong) {
    it(`"${words.join(' ')}" is refused on standard error with exit code 2`, async () => {
      const { code, out, err } = await run(...words)
      assert.deepEqual([code, out], [2, ''])
      assert.match(err, expected)
    })
  }

  it('as a program prints the version of package.json', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, 'src/main.ts'), '--version'])
    const { version }: { version?: unknown } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    assert.equal(stdout, `${String(version)}\n`)
  })
})
