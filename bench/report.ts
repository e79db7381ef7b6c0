// The figures as a table for people, as Markdown and as JSON. Every row in which Entrepot is behind is named.

import { type PeerName, PEER_NAMES, PEER_TITLES } from './peers.ts'
import { advantage, isBehind, isWithinSpread, type Results, type Row, summarize } from './results.ts'

/** Where and how a run was made. */
export interface Circumstances {
  readonly startedAt: string
  readonly seconds: number
  readonly command: string
  readonly commit: string
  readonly machine: string
  readonly versions: Readonly<Record<string, string>>
  readonly rounds: number
  readonly secondsPerLoad: number
  readonly scale: number
}

export interface Titles {
  readonly [scenario: string]: string
}

/** Peers Entrepot is compared with. nginx over plain files is none: it does nothing but give files. */
const RIVALS: readonly PeerName[] = ['stock', 'direct']

/** Three significant digits, without an exponent. */
export function formatNumber(value: number): string {
  if (value === 0) return '0'
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toLocaleString('en-US', { maximumFractionDigits: Math.min(6, digits), maximumSignificantDigits: 3 })
}

function cell(row: Row, peer: PeerName): string {
  const summary = summarize(row.samples[peer])
  if (summary === undefined) return ''
  const { median, min, max } = summary
  if (min === max) return formatNumber(median)
  return `${formatNumber(median)} (${formatNumber(min)}-${formatNumber(max)})`
}

function comparison(row: Row, peer: PeerName): string {
  const ratio = advantage(row, peer)
  if (ratio === undefined) return ''
  if (isBehind(row, peer)) return `${formatNumber(1 / ratio)} x behind`
  return ratio === 1 ? 'equal' : `${formatNumber(ratio)} x ahead`
}

/** One table of cells: the head first. Columns of peers that no row has are left out. */
function tableOf(rows: readonly Row[]): readonly (readonly string[])[] {
  const peers = PEER_NAMES.filter((peer) => rows.some((row) => row.samples[peer] !== undefined))
  const rivals = RIVALS.filter((peer) => rows.some((row) => advantage(row, peer) !== undefined))
  const head = [
    '',
    'unit',
    ...peers.map((peer) => PEER_TITLES[peer]),
    ...rivals.map((peer) => `Entrepot to ${PEER_TITLES[peer]}`),
  ]
  const body = rows.map((row) => [
    row.label,
    row.unit,
    ...peers.map((peer) => cell(row, peer)),
    ...rivals.map((peer) => comparison(row, peer)),
  ])
  return [head, ...body]
}

/** Rows in which Entrepot's median is worse than a rival's, with by how much and whether rounds differ by more. */
export function linesBehind(results: Results, titles: Titles): readonly string[] {
  const lines: string[] = []
  for (const row of results.rows) {
    for (const peer of RIVALS) {
      if (!isBehind(row, peer)) continue
      const ours = formatNumber(summarize(row.samples.entrepot)?.median ?? NaN)
      const theirs = formatNumber(summarize(row.samples[peer])?.median ?? NaN)
      const spread = isWithinSpread(row, peer) ? ', within the spread of the rounds' : ''
      const where = `${titles[row.scenario] ?? row.scenario}: ${row.label}`
      lines.push(`${where}: ${ours} ${row.unit}, ${PEER_TITLES[peer]} ${theirs}${spread}`)
    }
  }
  return lines
}

function scenariosOf(results: Results): readonly string[] {
  return [...new Set(results.rows.map((row) => row.scenario))]
}

function failureLines(results: Results): readonly string[] {
  return results.failures.map(({ scenario, peer, message }) => `${scenario}, ${PEER_TITLES[peer]}: ${message}`)
}

function circumstanceLines(made: Circumstances): readonly string[] {
  const versions = Object.entries(made.versions).map(([name, version]) => `${name} ${version}`)
  return [
    `${made.startedAt}, commit ${made.commit}, ${Math.round(made.seconds)} s: ${made.command}`,
    `${made.machine}; ${versions.join(', ')}`,
    `medians of ${made.rounds} rounds (least-most), ${made.secondsPerLoad} s each load of small replies` +
      (made.scale === 1 ? '' : `; SIZES TIMES ${made.scale}, not comparable with a full run`),
  ]
}

/** For a terminal. */
export function textReport(results: Results, titles: Titles, made: Circumstances): string {
  const parts = [...circumstanceLines(made)]
  for (const scenario of scenariosOf(results)) {
    const table = tableOf(results.rows.filter((row) => row.scenario === scenario))
    const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((cells) => cells[column]?.length ?? 0)))
    parts.push('', titles[scenario] ?? scenario)
    for (const cells of table)
      parts.push(
        `  ${cells
          .map((text, at) => text.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd()}`,
      )
  }
  parts.push(
    ...listed('Entrepot is behind in', linesBehind(results, titles)),
    ...listed('Failed', failureLines(results)),
  )
  return `${parts.join('\n')}\n`
}

/** For `docs/performance.md`. */
export function markdownReport(results: Results, titles: Titles, made: Circumstances): string {
  const parts = circumstanceLines(made).map((line) => `- ${line}`)
  for (const scenario of scenariosOf(results)) {
    const [head = [], ...body] = tableOf(results.rows.filter((row) => row.scenario === scenario))
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
    parts.push(
      '',
      `### ${titles[scenario] ?? scenario}`,
      '',
      line(head),
      line(head.map(() => '---')),
      ...body.map(line),
    )
  }
  parts.push(...listed('### Entrepot is behind in', linesBehind(results, titles)))
  parts.push(...listed('### Failed', failureLines(results)))
  return `${parts.join('\n')}\n`
}

function listed(title: string, lines: readonly string[]): readonly string[] {
  return ['', title, '', ...(lines.length === 0 ? ['nothing'] : lines.map((line) => `- ${line}`))]
}

/** Everything, samples included, for a later comparison. */
export function jsonReport(results: Results, titles: Titles, made: Circumstances): string {
  const rows = results.rows.map((row) => ({
    ...row,
    title: titles[row.scenario],
    medians: Object.fromEntries(PEER_NAMES.map((peer) => [peer, summarize(row.samples[peer])?.median])),
    behind: RIVALS.filter((peer) => isBehind(row, peer)),
  }))
  return `${JSON.stringify({ circumstances: made, rows, failures: results.failures }, undefined, 2)}\n`
}
