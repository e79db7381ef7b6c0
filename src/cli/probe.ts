/** Reaching each upstream step by step, once for each of its credentials. */
import type { Config } from '../config/config.ts'
import { codeOf, type ErrorCode } from '../errors.ts'
import { codeOfStep, type ProbeReport, type ProbeStep } from '../upstream/probe.ts'
import { planProbes, type ProbeTarget } from './probe-plan.ts'
import type { ProbedUpstream, Runtime } from './runtime.ts'

export type StepName = 'dns' | 'tls' | 'auth' | 'head'

/** What one endpoint of an upstream said to one credential. */
export interface ProbeResult {
  readonly upstream: string
  readonly endpoint: string
  /** What was asked for. */
  readonly repository: string
  readonly ok: boolean
  /** Those that were tried, in order: after one that failed there are no more. */
  readonly steps: readonly (ProbeStep & { readonly step: StepName })[]
}

/** The HEAD, and whether it failed because of who we say we are. */
interface AskedStep extends ProbeStep {
  readonly isLogin: boolean
}

export const STEPS: readonly StepName[] = ['dns', 'tls', 'auth', 'head']
// Longer than any step of a probe may take; only a defect reaches it.
const PROBE_TIMEOUT_MS = 90_000
const MISSING: ReadonlySet<ErrorCode | undefined> = new Set(['MANIFEST_UNKNOWN', 'NAME_UNKNOWN'] as const)
/** Upstreams that are probed at a time. */
const CONCURRENCY = 16

/** Every target of every upstream that can be probed, in the order of the configuration. */
export async function probeAll(config: Config, runtime: Runtime, version: string): Promise<ProbeResult[]> {
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
  const { repository } = target
  const report = await upstream.probe({ signal, repository })
  const isReached = report.endpoints.some(({ auth }) => auth.ok)
  const asked = isReached ? await askForImage(upstream, target, signal) : undefined
  return report.endpoints.map((endpoint, index) => {
    // The HEAD goes through the endpoints in their order, so it is told once.
    const head = index === 0 ? asked : undefined
    const steps = triedSteps(endpoint, head)
    return { upstream: upstream.name, endpoint: endpoint.endpoint, repository, ok: steps.every(({ ok }) => ok), steps }
  })
}

/**
 * One HEAD. That the image is missing is an answer, and so is, for one that nobody promised, that it is not ours to read.
 * Only here does a registry with Basic look at the password.
 */
async function askForImage(
  upstream: ProbedUpstream,
  { repository, tag, isKnown }: ProbeTarget,
  signal: AbortSignal,
): Promise<AskedStep> {
  const startedAt = performance.now()
  const found = await upstream.headManifest(repository, tag, { signal }).then(
    () => ({ ok: true, detail: `${repository}:${tag} is there`, isLogin: false }),
    (error: unknown) => {
      const isAnswer = MISSING.has(codeOf(error)) || (!isKnown && codeOf(error) === 'UPSTREAM_DENIED')
      const isLogin = codeOf(error) === 'CREDENTIALS_REJECTED'
      return {
        ok: isAnswer,
        detail: error instanceof Error ? error.message : String(error),
        ...(isAnswer ? {} : codeOfStep(error)),
        isLogin,
      }
    },
  )
  return { ...found, ms: Math.round(performance.now() - startedAt) }
}

function triedSteps(
  { dns, connect, auth }: ProbeReport['endpoints'][number],
  asked: AskedStep | undefined,
): ProbeResult['steps'] {
  // A registry with Basic says only now that the password is wrong; the operator looks for that under auth.
  const login = auth.ok && asked?.isLogin ? { ...asked, detail: `wrong user name or password: ${asked.detail}` } : auth
  const tried: ProbeResult['steps'][number][] = []
  for (const [index, step] of [dns, connect, login, asked].entries()) {
    const name = STEPS[index]
    if (step === undefined || name === undefined) continue
    const { ok, detail, code, ms } = step
    tried.push({ step: name, ok, detail, ...(code === undefined ? {} : { code }), ms })
    if (!step.ok) break
  }
  return tried
}
