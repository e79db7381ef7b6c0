// `npm run bench`: runs the scenarios, prints the table, writes JSON and Markdown. Exit code 1 when any measurement failed.

import { writeFile } from 'node:fs/promises'
import { cpus, release, totalmem } from 'node:os'
import { Command, InvalidArgumentError } from 'commander'
import { labProgram, missingProgram, runAny } from '../test/e2e/lab.ts'
import { Lab } from './lab.ts'
import { PEER_NAMES, type PeerName, whyMissing } from './peers.ts'
import { type Circumstances, jsonReport, markdownReport, textReport, type Titles } from './report.ts'
import { Results } from './results.ts'
import { Bench, type BenchOptions, type Scenario } from './scenario.ts'
import { blobLarge } from './scenarios/blob-large.ts'
import { blobSmall } from './scenarios/blob-small.ts'
import { coldPull } from './scenarios/cold-pull.ts'
import { manifestHot } from './scenarios/manifest-hot.ts'
import { start } from './scenarios/start.ts'
import { storm } from './scenarios/storm.ts'

const SCENARIOS: readonly Scenario[] = [start, manifestHot, blobSmall, blobLarge, coldPull, storm]

const VERSION = /\d+\.\d+\.\d+/

interface Arguments {
  readonly only?: readonly string[]
  readonly peers: readonly string[]
  readonly rounds: number
  readonly seconds: number
  readonly scale: number
  readonly json?: string
  readonly markdown?: string
}

function positive(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError('expected a number above 0')
  return value
}

function count(text: string): number {
  const value = positive(text)
  if (!Number.isInteger(value)) throw new InvalidArgumentError('expected a whole number')
  return value
}

function among(known: readonly string[]): (text: string) => readonly string[] {
  return (text) => {
    const names = text.split(',').map((name) => name.trim())
    const unknown = names.find((name) => !known.includes(name))
    if (unknown !== undefined) throw new InvalidArgumentError(`no "${unknown}"; there are ${known.join(', ')}`)
    return names
  }
}

function parseArguments(): Arguments {
  const names = SCENARIOS.map((scenario) => scenario.name)
  return new Command('bench')
    .description('Measures Entrepot beside the stock registry and going direct, on this machine.')
    .option('--only <names>', `scenarios, separated by commas: ${names.join(', ')}`, among(names))
    .option('--peers <names>', 'peers, separated by commas', among(PEER_NAMES), PEER_NAMES)
    .option('--rounds <n>', 'rounds of each measurement', count, 5)
    .option('--seconds <n>', 'seconds of each load of small replies', count, 4)
    .option('--scale <factor>', 'factor on the size of large blobs, for a quick look', positive, 1)
    .option('--json <file>', 'write everything, samples included')
    .option('--markdown <file>', 'write the tables as docs/performance.md has them')
    .parse()
    .opts<Arguments>()
}

/** The peers that are there. Says which are not, and why. */
function presentPeers(wanted: readonly string[]): readonly PeerName[] {
  const peers = PEER_NAMES.filter((name) => wanted.includes(name))
  return peers.filter((name) => {
    const why = whyMissing(name)
    if (why !== undefined) say(`${name} is left out: ${why}`)
    return why === undefined
  })
}

function say(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}

/** What a program says of itself, or `unknown`: a version nobody can tell must not end the run. wrk exits 1 with its. */
async function matchOutput(pattern: RegExp, program: string, args: readonly string[]): Promise<string> {
  const ran = await runAny(program, args).catch(() => undefined)
  return pattern.exec(`${ran?.stdout}\n${ran?.stderr}`)?.[0] ?? 'unknown'
}

async function circumstances(startedAt: Date, options: BenchOptions): Promise<Circumstances> {
  const [processor] = cpus()
  const memory = Math.round(totalmem() / 2 ** 30)
  const root = ['-C', import.meta.dirname]
  return {
    startedAt: startedAt.toISOString(),
    seconds: (Date.now() - startedAt.getTime()) / 1000,
    command: `node bench/main.ts ${process.argv.slice(2).join(' ')}`.trim(),
    commit: await matchOutput(/^\S+/, 'git', [...root, 'describe', '--always', '--dirty', '--abbrev=9']),
    machine: `${cpus().length} x ${processor?.model ?? 'processor unknown'}, ${memory} GiB, Linux ${release()}`,
    versions: {
      Node: process.version,
      registry: await matchOutput(VERSION, labProgram('registry'), ['--version']),
      nginx: await matchOutput(VERSION, 'nginx', ['-v']),
    },
    rounds: options.rounds,
    secondsPerLoad: options.seconds,
    scale: options.scale,
  }
}

/** Whether all scenarios ran to their end. What was measured before a stop is in `results`. */
async function runAll(
  scenarios: readonly Scenario[],
  options: BenchOptions,
  results: Results,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await using lab = await Lab.open(signal)
    for (const scenario of scenarios) await scenario.run(new Bench(scenario.name, lab, options, results, say))
    signal.throwIfAborted()
    return true
  } catch (error) {
    say(error instanceof Error ? error.message : String(error))
    process.exitCode = 1
    return false
  }
}

async function main(): Promise<void> {
  const given = parseArguments()
  const wrk = missingProgram('wrk')
  if (wrk !== undefined) throw new Error(`${wrk}: \`apt-get install wrk\`, or \`node test/e2e/setup.ts\` for all tools`)
  const scenarios = SCENARIOS.filter((scenario) => given.only?.includes(scenario.name) ?? true)
  const { rounds, seconds, scale } = given
  const options: BenchOptions = { rounds, seconds, scale, peers: presentPeers(given.peers) }
  const startedAt = new Date()
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => stopping.abort(new Error(`stopped by ${signal}`)))
  }
  const results = new Results()
  const isWhole = await runAll(scenarios, options, results, stopping.signal)
  const titles: Titles = Object.fromEntries(scenarios.map(({ name, title }) => [name, title]))
  const made = await circumstances(startedAt, options)
  process.stdout.write(textReport(results, titles, made))
  if (!isWhole) return say('ended early: no file is written')
  if (given.json !== undefined) await writeFile(given.json, jsonReport(results, titles, made))
  if (given.markdown !== undefined) await writeFile(given.markdown, markdownReport(results, titles, made))
  if (results.failures.length > 0) process.exitCode = 1
}

await main()
