/** Loading the configuration for a command, and saying what is wrong with it. */
import { join } from 'node:path'
import { loadConfig, type LoadedConfig } from '../config/load.ts'
import { formatPlace, type Problem } from '../config/source.ts'
import { printable } from './table.ts'
import type { Output, Surroundings } from './terminal.ts'

export interface ConfigChoice {
  /** `--config` */
  readonly config?: string | undefined
  /** `--data` */
  readonly data?: string | undefined
}

/** Loads the configuration that `choice` and the working folder name. */
export function loadChosenConfig(
  choice: ConfigChoice,
  { env, programFolder, workingFolder }: Surroundings,
): LoadedConfig {
  return loadConfig({
    configFile: choice.config,
    dataFolder: choice.data,
    shippedUpstreams: join(programFolder, 'upstreams.d'),
    workingFolder,
    env,
  })
}

/** Every problem on a line of its own, by place, then how many there are. */
export function writeProblems(problems: readonly Problem[], err: Output): void {
  for (const problem of problems) {
    const key = problem.key === '' ? '' : `${err.paint('bold', printable(problem.key))}: `
    err.write(`${err.paint('cyan', printable(formatPlace(problem)))} ${key}${printable(problem.message)}\n`)
  }
  const files = new Set(problems.map(({ file }) => file)).size
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
  err.write(
    `${err.paint('red', `${count} in ${files === 1 ? 'the configuration' : `${files} configuration files`}`)}\n`,
  )
}

export function writeWarnings(warnings: readonly string[], err: Output): void {
  for (const warning of warnings) err.write(`${err.paint('yellow', 'warning:')} ${printable(warning)}\n`)
}
