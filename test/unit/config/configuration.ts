/** Writes a configuration into a folder of its own and loads it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { loadConfig, type LoadedConfig, type LoadOptions } from '../../../src/config/load.ts'
import type { Config } from '../../../src/config/config.ts'
import { formatPlace } from '../../../src/config/source.ts'

export const SHIPPED = join(import.meta.dirname, '../../../upstreams.d')

export class TestConfiguration implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'entrepot-config-'))

  /** `files` by their path below the folder. Without one in `upstreams.d` there is an upstream `ghcr.io`. */
  constructor(files: Readonly<Record<string, string>> = {}) {
    const hasUpstream = Object.keys(files).some((path) => path.startsWith('upstreams.d/'))
    const all = hasUpstream ? files : { ...files, 'upstreams.d/ghcr.io.yaml': 'url: https://ghcr.io\n' }
    for (const [path, content] of Object.entries(all)) {
      const file = join(this.folder, path)
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, content, { mode: 0o600 })
    }
  }

  load(options: Partial<LoadOptions> = {}): LoadedConfig {
    return loadConfig({ workingFolder: this.folder, shippedUpstreams: SHIPPED, env: {}, ...options })
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The configuration that `files` give; throws when there are problems. */
export function accept(files: Readonly<Record<string, string>>, options: Partial<LoadOptions> = {}): Config {
  using written = new TestConfiguration(files)
  const { config, problems } = written.load(options)
  if (config === undefined) throw new Error(problems.map(({ key, message }) => `${key}: ${message}`).join('\n'))
  return config
}

/** The problems that `files` have, each as `file:line:column key: message`. */
export function refuse(files: Readonly<Record<string, string>>, options: Partial<LoadOptions> = {}): string[] {
  using written = new TestConfiguration(files)
  return written.load(options).problems.map((problem) => `${formatPlace(problem)} ${problem.key}: ${problem.message}`)
}
