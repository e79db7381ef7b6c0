/** `entrepot check`: the configuration, then each upstream by DNS, TLS, auth and one HEAD. */
import type { Config } from '../config/config.ts'
import { EXIT } from './exit.ts'
import { probeAll, STEPS, type ProbeResult, type StepName } from './probe.ts'
import { hintFor } from './hints.ts'
import { loadChosenConfig, writeProblems, writeWarnings, type ConfigChoice } from './problems.ts'
import type { Runtime } from './runtime.ts'
import { formatTable, printable } from './table.ts'
import type { Output, Surroundings } from './terminal.ts'

export interface CheckOptions extends ConfigChoice {
  /** One JSON document on standard output instead of text. */
  readonly json?: boolean | undefined
  /** Calls no upstream. */
  readonly offline?: boolean | undefined
}

/** Resolves to the exit code: 0, 1 when an upstream could not be used, 2 when the configuration cannot. */
export async function check(
  options: CheckOptions,
  openRuntime: () => Promise<Runtime>,
  world: Surroundings,
): Promise<number> {
  const { config, problems, warnings } = loadChosenConfig(options, world)
  const { out, err } = world
  if (config === undefined) {
    if (options.json) writeJson({ ok: false, problems, warnings, upstreams: [] }, out)
    else {
      writeWarnings(warnings, err)
      writeProblems(problems, err)
    }
    return EXIT.usage
  }
  const results = options.offline ? [] : await probeAll(config, await openRuntime(), world.version)
  const ok = results.every((result) => result.ok)
  if (options.json) writeJson({ ok, problems, warnings, upstreams: results }, out)
  else {
    writeWarnings(warnings, err)
    writeResults(config, results, options.offline === true, out)
  }
  return ok ? EXIT.ok : EXIT.failure
}

function writeResults(config: Config, results: readonly ProbeResult[], isOffline: boolean, out: Output): void {
  const count = config.upstreams.length === 1 ? '1 upstream' : `${config.upstreams.length} upstreams`
  out.write(`${out.paint('green', 'ok')}  configuration with ${count}${isOffline ? ', none of them called' : ''}\n`)
  if (results.length === 0) return
  const rows = results.map((result) => [
    nameOf(result, results),
    ...STEPS.map((step) => showStep(result, step)),
    showFound(result),
  ])
  const paint = (padded: string, { row, text }: { row: number; text: string }): string => {
    if (row === -1) return out.paint('dim', padded)
    return text === FAILED ? out.paint('red', padded) : padded
  }
  const header = ['UPSTREAM', ...STEPS.map((step) => step.toUpperCase()), 'FOUND']
  out.write(`\n${formatTable(header, rows, { width: out.width, indent: '  ', paint })}\n`)
  const failed = results.filter(({ ok }) => !ok)
  if (failed.length > 0) out.write('\n')
  for (const result of failed) {
    const { step, detail, code } = result.steps.at(-1) ?? { step: 'dns', detail: '' }
    out.write(`  ${out.paint('red', printable(`${nameOf(result, results)}: ${step}:`))} ${printable(detail)}\n`)
    const hint = hintFor(code)
    if (hint !== undefined) out.write(`    ${hint}\n`)
  }
}

const FAILED = 'FAILED'

/** The upstream, and what tells this row from its others. */
function nameOf({ upstream, endpoint, repository }: ProbeResult, all: readonly ProbeResult[]): string {
  const siblings = all.filter((other) => other.upstream === upstream)
  const hasEndpoints = siblings.some((other) => other.endpoint !== endpoint)
  const hasRepositories = siblings.some((other) => other.repository !== repository)
  return [
    upstream,
    ...(hasEndpoints ? [`at ${endpoint}`] : []),
    ...(hasRepositories ? [`for ${repository}`] : []),
  ].join(' ')
}

function showStep({ steps }: ProbeResult, name: StepName): string {
  const step = steps.find((each) => each.step === name)
  if (step === undefined) return '-'
  if (!step.ok) return FAILED
  return name === 'tls' && step.detail.startsWith('plain http') ? 'no TLS' : `${Math.round(step.ms)} ms`
}

/** How we are known there; what failed stands below the table, where it has room. */
function showFound({ steps, ok }: ProbeResult): string {
  return ok ? (steps.find(({ step }) => step === 'auth')?.detail ?? '') : 'see below'
}

function writeJson(document: unknown, out: Output): void {
  out.write(`${JSON.stringify(document, null, 2)}\n`)
}
