/** `entrepot check`: the configuration, then each upstream by DNS, TLS, auth and one HEAD. */
import type { Config } from '../config/config.ts'
import type { ProbeReport, ProbeStep } from '../upstream/probe.ts'
import { EXIT } from './exit.ts'
import { planProbes, type ProbeTarget } from './probe-plan.ts'
import { loadChosenConfig, writeProblems, writeWarnings, type ConfigChoice } from './problems.ts'
import type { ProbedUpstream, Runtime } from './runtime.ts'
import { formatTable, printable } from './table.ts'
import type { Output, Surroundings } from './terminal.ts'

export interface CheckOptions extends ConfigChoice {
  /** One JSON document on standard output instead of text. */
  readonly json?: boolean | undefined
  /** Calls no upstream. */
  readonly offline?: boolean | undefined
}

type StepName = 'dns' | 'tls' | 'auth' | 'head'

/** What one endpoint of an upstream said to one credential. */
interface ProbeResult {
  readonly upstream: string
  readonly endpoint: string
  /** What was asked for; undefined where nothing particular was. */
  readonly repository: string | undefined
  readonly ok: boolean
  /** Those that were tried, in order: after one that failed there are no more. */
  readonly steps: readonly (ProbeStep & { readonly step: StepName })[]
}

const STEPS: readonly StepName[] = ['dns', 'tls', 'auth', 'head']
// Longer than any step of a probe may take; only a defect reaches it.
const PROBE_TIMEOUT_MS = 90_000
/** Upstreams that are probed at a time. */
const CONCURRENCY = 16

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

async function probeAll(config: Config, runtime: Runtime, version: string): Promise<ProbeResult[]> {
  await using probes = runtime.openProbes(config, { version })
  const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS)
  const byName = new Map(probes.upstreams.map((upstream) => [upstream.name, upstream]))
  const work = config.upstreams.flatMap((upstream) => {
    const probed = byName.get(upstream.name)
    return probed === undefined ? [] : planProbes(upstream).map((target) => ({ probed, target }))
  })
  const results: ProbeResult[][] = work.map(() => [])
  const queue = work.entries()
  const worker = async (): Promise<void> => {
    for (const [index, { probed, target }] of queue) results[index] = await probeOne(probed, target, signal)
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, worker))
  return results.flat()
}

async function probeOne(upstream: ProbedUpstream, target: ProbeTarget, signal: AbortSignal): Promise<ProbeResult[]> {
  const report = await upstream.probe({ ...target, signal })
  return report.endpoints.map((endpoint, index) => {
    // The HEAD goes through the endpoints in their order, so it is told once.
    const head = index === 0 ? report.head : undefined
    const steps = triedSteps(endpoint, head)
    const { repository } = target
    return { upstream: upstream.name, endpoint: endpoint.endpoint, repository, ok: steps.every(({ ok }) => ok), steps }
  })
}

function triedSteps(
  { dns, connect, auth }: ProbeReport['endpoints'][number],
  head: ProbeStep | undefined,
): ProbeResult['steps'] {
  const tried: ProbeResult['steps'][number][] = []
  for (const [index, step] of [dns, connect, auth, head].entries()) {
    const name = STEPS[index]
    if (step === undefined || name === undefined) continue
    tried.push({ step: name, ...step })
    if (!step.ok) break
  }
  return tried
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
    const { step, detail } = result.steps.at(-1) ?? { step: 'dns', detail: '' }
    out.write(`  ${out.paint('red', printable(`${nameOf(result, results)}: ${step}:`))} ${printable(detail)}\n`)
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
  return step.ok ? `${Math.round(step.ms)} ms` : FAILED
}

/** How we are known there; what failed stands below the table, where it has room. */
function showFound({ steps, ok }: ProbeResult): string {
  return ok ? (steps.find(({ step }) => step === 'auth')?.detail ?? '') : 'see below'
}

function writeJson(document: unknown, out: Output): void {
  out.write(`${JSON.stringify(document, null, 2)}\n`)
}
