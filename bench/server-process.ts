// A server under measurement: started with its output in a file, timed to its first answer, and read from /proc.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'

/** What the kernel counted of one process, its threads included. */
export interface Usage {
  /** User and system time since its start. Resolution 10 ms. */
  readonly processorSeconds: number
  readonly residentBytes: number
  /** Highest resident size since the start or the last {@link resetPeak}. */
  readonly peakBytes: number
}

/** USER_HZ is 100 on every Linux that Node runs on. */
const TICKS_A_SECOND = 100
const POLL_MS = 1
const STOP_GRACE_MS = 5000

/** Reads `/proc/PID/stat` and `/proc/PID/status`. Throws when the process is gone. */
export function readUsage(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is the program's name in brackets and may hold anything; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return {
    processorSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND,
    residentBytes: statusBytes(status, 'VmRSS'),
    peakBytes: statusBytes(status, 'VmHWM'),
  }
}

function statusBytes(status: string, key: string): number {
  return Number(new RegExp(`^${key}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024
}

/** Lets `peakBytes` begin anew from what is resident now (proc(5), clear_refs). */
export function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

export interface ServerCommand {
  readonly program: string
  readonly args: readonly string[]
  readonly cwd: string
  /** Both of its output streams: what it logs costs it a write, and costs nobody else a read. */
  readonly logFile: string
  /** Answers 200 once the server serves. */
  readonly probe: string
  readonly timeoutMs: number
}

/** A running server. Dispose ends it: SIGTERM, then SIGKILL. */
export interface ServerProcess extends AsyncDisposable {
  /** Milliseconds from before the spawn to the first 200. */
  readonly startMs: number
  /** Throws when the server has ended, with the end of its log. */
  readonly usage: () => Usage
  /** Lets the peak begin anew from what is resident now. */
  readonly resetPeak: () => void
}

/** Starts a server and waits for its first 200. Rejects with the end of its log when it ends or takes too long. */
export async function startServerProcess(command: ServerCommand, signal: AbortSignal): Promise<ServerProcess> {
  const log = openSync(command.logFile, 'a')
  const startedAt = performance.now()
  const child = spawn(command.program, command.args, { cwd: command.cwd, stdio: ['ignore', log, log] })
  closeSync(log)
  child.on('error', () => undefined)
  const killAtExit = (): void => void child.kill('SIGKILL')
  process.on('exit', killAtExit)
  const stop = async (): Promise<void> => {
    await endProcess(child)
    process.off('exit', killAtExit)
  }
  while (!(await answers200(command.probe))) {
    const isOver = hasEnded(child) || performance.now() - startedAt > command.timeoutMs
    if (isOver || signal.aborted) {
      await stop()
      throw new Error(`${command.program} gave no 200 at ${command.probe}; ${lastLogged(command)}`)
    }
    await delay(POLL_MS)
  }
  const startMs = performance.now() - startedAt
  const pid = (): number => {
    if (child.pid !== undefined && !hasEnded(child)) return child.pid
    const how = child.signalCode ?? child.exitCode ?? 'unknown'
    throw new Error(`${command.program} ended (${how}); ${lastLogged(command)}`)
  }
  return {
    startMs,
    usage: () => readUsage(pid()),
    resetPeak: () => resetPeak(pid()),
    [Symbol.asyncDispose]: stop,
  }
}

function lastLogged(command: ServerCommand): string {
  const tail = readFileSync(command.logFile, 'utf8').trim().slice(-1500)
  return tail === '' ? 'it logged nothing' : `its log ends: ${tail}`
}

function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS)
  await ended
  clearTimeout(timer)
}

function answers200(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(url, { agent: false, timeout: 2000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(false))
  })
}
