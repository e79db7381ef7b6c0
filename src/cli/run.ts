/** The command line on this process: real streams, real signals, the real gateway. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { runProgram } from './program.ts'
import { streamOutput } from './terminal.ts'

/** Runs `words` (without node and script) and resolves to the exit code. */
export function run(words: readonly string[]): Promise<number> {
  const programFolder = join(import.meta.dirname, '../..')
  const world = {
    out: streamOutput(process.stdout),
    err: streamOutput(process.stderr),
    env: process.env,
    workingFolder: process.cwd(),
    version: readVersion(join(programFolder, 'package.json')),
    programFolder,
  }
  return runProgram({ arguments: words, openRuntime, world, events: process })
}

/** Loads the gateway only when a command needs it: help and version answer at once. */
async function openRuntime(): ReturnType<Parameters<typeof runProgram>[0]['openRuntime']> {
  return (await import('./open-runtime.ts')).openRuntime()
}

function readVersion(file: string): string {
  const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'))
  const hasVersion =
    typeof parsed === 'object' && parsed !== null && 'version' in parsed && typeof parsed.version === 'string'
  return hasVersion ? String(parsed.version) : 'unknown'
}
