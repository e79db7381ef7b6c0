// Load for small replies: wrk, from Debian. Streams and pulls are the light client's (puller.ts).

import { runAny } from '../test/e2e/lab.ts'
import type { Address } from './light-connection.ts'

export interface SmallLoad {
  readonly address: Address
  readonly path: string
  readonly accept?: string
  readonly connections: number
  readonly seconds: number
}

export interface SmallLoadReport {
  readonly requests: number
  readonly requestsPerSecond: number
  readonly p99Ms: number
}

const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000 }

/** Runs wrk with one thread. Rejects when any reply was not a 2xx or a socket failed. */
export async function loadSmall(load: SmallLoad): Promise<SmallLoadReport> {
  const { address, path, connections, seconds } = load
  const header = load.accept === undefined ? [] : ['-H', `Accept: ${load.accept}`]
  const url = `http://${address.host}:${address.port}${path}`
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '--timeout', '10s', ...header, url]
  const ran = await runAny('wrk', args, { timeoutMs: (seconds + 30) * 1000 })
  if (ran.code !== 0) throw new Error(`wrk ${url}: exit ${ran.code} ${ran.stderr.slice(-500)}`)
  return parseWrk(ran.stdout)
}

/** Reads what wrk 4 prints. Throws on failed requests and on text it does not know. */
export function parseWrk(text: string): SmallLoadReport {
  const failed = /^ *(Non-2xx.*|Socket errors.*)$/m.exec(text)?.[1]
  if (failed !== undefined) throw new Error(`wrk: ${failed}`)
  const requests = Number(/^ *(\d+) requests in /m.exec(text)?.[1])
  const requestsPerSecond = Number(/^Requests\/sec: *([\d.]+)/m.exec(text)?.[1])
  const [, amount, unit] = /^ *99% *([\d.]+)([a-z]+)/m.exec(text) ?? []
  const p99Ms = Number(amount) * (UNIT_MS[unit ?? ''] ?? NaN)
  if (![requests, requestsPerSecond, p99Ms].every(Number.isFinite)) throw new Error(`wrk printed\n${text}`)
  return { requests, requestsPerSecond, p99Ms }
}
