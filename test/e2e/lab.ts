// The lab: where tools and content are cached, and how a test runs programs, starts servers and waits for them.
// Knows nothing of registries or of the gateway.

import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Folder outside the checkout that holds built tools and generated images: `ENTREPOT_LAB`, or one below the home. */
export function labFolder(): string {
  return process.env['ENTREPOT_LAB'] ?? join(homedir(), '.cache', 'entrepot-lab')
}

/** What `setup.ts` recorded of one tool: its version, or why it could not be had. */
export interface ToolRecord {
  readonly name: string
  readonly version?: string
  readonly path?: string
  readonly error?: string
}

export function toolsFile(): string {
  return join(labFolder(), 'tools.json')
}

/** The tools as the last setup left them; empty when it never ran. */
export function readTools(): readonly ToolRecord[] {
  if (!existsSync(toolsFile())) return []
  return JSON.parse(readFileSync(toolsFile(), 'utf8')) as ToolRecord[]
}

/** A program built into the lab. The full path: several of these have an older namesake among Debian's. */
export function labProgram(name: string): string {
  return join(labFolder(), 'bin', name)
}

/** Why a program cannot be used, or undefined when it is there. Absolute paths and names on PATH. */
export function missingProgram(program: string): string | undefined {
  const candidates = program.startsWith('/')
    ? [program]
    : (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, program))
  if (candidates.some((candidate) => isExecutable(candidate))) return undefined
  const name = program.slice(program.lastIndexOf('/') + 1)
  return readTools().find((tool) => tool.name === name)?.error ?? `${program} is not installed`
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export interface RunOptions {
  readonly cwd?: string
  /** Added to this process's own environment. */
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  /** Milliseconds until the program is killed. Default 5 min. */
  readonly timeoutMs?: number
}

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, whatever its exit code. Rejects only when it cannot be started or takes too long. */
export function runAny(program: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      child.kill('SIGKILL')
    }, options.timeoutMs ?? 300_000)
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    child.on('error', (cause) => {
      clearTimeout(timer)
      reject(new Error(`${program}: cannot start`, { cause }))
    })
    child.on('close', (code) => {
      clearTimeout(timer)
      const ran = {
        code: code ?? -1,
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      }
      if (isLate) reject(new Error(`${command(program, args)}: killed after its time\n${tail(ran.stderr)}`))
      else resolve(ran)
    })
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input ?? '')
  })
}

/** Runs a program that must succeed and gives its standard output. The error holds the end of what it printed. */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const ran = await runAny(program, args, options)
  if (ran.code === 0) return ran.stdout
  throw new Error(`${command(program, args)}: exit ${ran.code}\n${tail(ran.stdout)}\n${tail(ran.stderr)}`)
}

function command(program: string, args: readonly string[]): string {
  return [program, ...args].join(' ').slice(0, 400)
}

function tail(text: string): string {
  return text.trim().slice(-2000)
}

export interface ServerOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Resolves true once the server answers; called again and again until then. */
  readonly ready: () => Promise<boolean>
  /** Milliseconds until it must be ready. Default 30 s. */
  readonly timeoutMs?: number
  /** Milliseconds between SIGTERM and SIGKILL. Default 10 s. */
  readonly graceMs?: number
}

/** A server started by a test. Stops on dispose. */
export interface Server extends AsyncDisposable {
  readonly pid: number
  /** Everything it printed on both streams so far, by line. */
  readonly lines: readonly string[]
  /** Its exit code, or undefined while it runs. */
  readonly exitCode: () => number | undefined
  readonly kill: (signal: NodeJS.Signals) => void
  readonly stop: () => Promise<void>
}

/** Starts a server and waits until it is ready. Rejects with what it printed when it ends or stays silent. */
export async function startServer(program: string, args: readonly string[], options: ServerOptions): Promise<Server> {
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const lines: string[] = []
  collectLines(child, lines)
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => resolve())
    child.on('error', (error) => {
      lines.push(error.message)
      resolve()
    })
  })
  const hasEnded = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null
  const stop = async (): Promise<void> => {
    if (hasEnded()) return ended
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), options.graceMs ?? 10_000)
    await ended
    clearTimeout(timer)
  }
  const deadline = Date.now() + (options.timeoutMs ?? 30_000)
  while (!(await options.ready().catch(() => false))) {
    if (hasEnded() || Date.now() > deadline) {
      await stop()
      const why = hasEnded() ? 'ended or did not get ready' : 'did not get ready'
      throw new Error(`${command(program, args)}: ${why}\n${lines.slice(-30).join('\n')}`)
    }
    await delay(50)
  }
  return {
    pid: child.pid ?? -1,
    lines,
    exitCode: () => child.exitCode ?? undefined,
    kill: (signal) => void child.kill(signal),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function collectLines(child: ChildProcess, lines: string[]): void {
  for (const stream of [child.stdout, child.stderr]) {
    let rest = ''
    stream?.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      lines.push(...parts)
    })
    stream?.on('end', () => {
      if (rest !== '') lines.push(rest)
    })
  }
}

/** True when the address answers any HTTP status at all. */
export async function answersHttp(url: string): Promise<boolean> {
  const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(2000) })
  await response.body?.cancel()
  return true
}

/** A loopback port nobody listens on now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port)
        else reject(new Error('no port'))
      })
    })
  })
}

/** A temporary folder with a short name (Unix sockets allow 107 bytes); dispose unmounts what is below and removes it. */
export interface Folder extends AsyncDisposable {
  readonly path: string
}

export async function temporaryFolder(): Promise<Folder> {
  const path = await mkdtemp(join(tmpdir(), 'e2e-'))
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await unmountBelow(path)
      await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
    },
  }
}

async function unmountBelow(path: string): Promise<void> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  const below = mounts
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${path}/`))
  for (const point of below.toReversed()) await runAny('umount', ['-l', point])
}
