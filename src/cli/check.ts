/** `entrepot check`: the configuration, then each upstream by DNS, TLS, auth and one HEAD. */
import type { Config } from '../config/config.ts'
import { EXIT } from './exit.ts'
import { loadChosenConfig, writeProblems, writeWarnings, type ConfigChoice } from './problems.ts'
import type { ProbedUpstream, ProbeStep, Runtime } from './runtime.ts'
import { formatTable, printable } from './table.ts'
import type { Output, Surroundings } from './terminal.ts'

export interface CheckOptions extends ConfigChoice {
  /** One JSON document on standard output instead of text. */
  readonly json?: boolean | undefined
  /** Calls no upstream. */
  readonly offline?: boolean | undefined
}

interface ProbeResult {
  readonly name: string
  readonly ok: boolean
  readonly steps: readonly ProbeStep[]
}

// Enough for a slow registry with retries; a probe that takes longer is an answer too.
const PROBE_TIMEOUT_MS = 30_000

/** Resolves to the exit code: 0, 1 when an upstream could not be used, 2 when the configuration cannot. */
export async function check(options: CheckOptions, runtime: Runtime, world: Surroundings): Promise<number> {
  const { config, problems, warnings } = loadChosenConfig(options, world)
  const { out, err } = world
  if (config === undefined) {
    if (options.json) out.write(`${JSON.stringify({ ok: false, problems, warnings, upstreams: [] }, null, 2)}\n`)
    else {
      writeWarnings(warnings, err)
      writeProblems(problems, err)
    }
    return EXIT.usage
  }
  const results = options.offline ? [] : await probeAll(config, runtime, world.version)
  const ok = results.every((result) => result.ok)
  if (options.json) out.write(`${JSON.stringify({ ok, problems, warnings, upstreams: results }, null, 2)}\n`)
  else {
    writeWarnings(warnings, err)
    writeResults(config, results, options.offline === true, out)
  }
  return ok ? EXIT.ok : EXIT.failure
}

async function probeAll(config: Config, runtime: Runtime, version: string): Promise<ProbeResult[]> {
  await using probes = await runtime.openProbes(config, { version })
  const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS)
  return await Promise.all(probes.upstreams.map((upstream) => probeOne(upstream, signal)))
}

async function probeOne(upstream: ProbedUpstream, signal: AbortSignal): Promise<ProbeResult> {
  try {
    const steps = await upstream.probe({ signal })
    return { name: upstream.name, ok: steps.every((step) => step.ok), steps }
  } catch (error) {
    const detail = signal.aborted ? `no result after ${PROBE_TIMEOUT_MS / 1000}s` : String(error)
    return { name: upstream.name, ok: false, steps: [{ step: 'probe', ok: false, detail, ms: PROBE_TIMEOUT_MS }] }
  }
}

function writeResults(config: Config, results: readonly ProbeResult[], isOffline: boolean, out: Output): void {
  const count = config.upstreams.length === 1 ? '1 upstream' : `${config.upstreams.length} upstreams`
  out.write(`${out.paint('green', 'ok')}  configuration: ${count}${isOffline ? ', none of them called' : ''}\n`)
  if (results.length === 0) return
  const steps = [...new Set(results.flatMap((result) => result.steps.map(({ step }) => step)))]
  const rows = results.map((result) => [
    result.name,
    ...steps.map((name) => showStep(result.steps.find(({ step }) => step === name))),
  ])
  const paint = (padded: string, { row, text }: { row: number; text: string }): string => {
    if (row === -1) return out.paint('dim', padded)
    return text === FAILED ? out.paint('red', padded) : padded
  }
  const header = ['UPSTREAM', ...steps.map((step) => step.toUpperCase())]
  out.write(`\n${formatTable(header, rows, { width: out.width, indent: '  ', paint })}\n`)
  const failures = results.flatMap(({ name, steps: taken }) =>
    taken.filter((step) => !step.ok).map((step) => ({ name, ...step })),
  )
  if (failures.length === 0) return
  out.write('\n')
  for (const { name, step, detail } of failures) {
    out.write(`  ${out.paint('red', `${printable(name)}: ${step}:`)} ${printable(detail)}\n`)
  }
}

const FAILED = 'FAILED'

function showStep(step: ProbeStep | undefined): string {
  if (step === undefined) return '-'
  const ms = `${Math.round(step.ms)} ms`
  if (!step.ok) return FAILED
  return step.detail === '' ? ms : `${ms}, ${step.detail}`
}
