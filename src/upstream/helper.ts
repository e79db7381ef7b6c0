/** `docker-credential-NAME get`: the one protocol that covers ECR, GAR, ACR and every keychain. */
import { spawn } from 'node:child_process'
import { GatewayError } from '../errors.ts'

/** A user name and what proves it; wherever it comes from. */
export interface Secret {
  readonly username: string
  readonly password: string
}

export interface HelperOptions {
  /** What follows `docker-credential-`; a full program name is taken too. */
  readonly helper: string
  /** What the helper is asked for, such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`. */
  readonly server: string
  readonly signal: AbortSignal
  /** Default 20 s: a helper may itself call a cloud API. */
  readonly timeoutMs?: number
}

const PREFIX = 'docker-credential-'
const MAX_OUTPUT_BYTES = 64 * 1024

/**
 * Asks a helper, without a shell. Undefined when it knows nothing about the server. CREDENTIALS_REJECTED when it cannot be
 * run, takes too long, says too much or answers what no helper answers; the message never holds what it printed.
 */
export async function askHelper({
  helper,
  server,
  signal,
  timeoutMs = 20_000,
}: HelperOptions): Promise<Secret | undefined> {
  const program = helper.startsWith(PREFIX) ? helper : `${PREFIX}${helper}`
  const subject = `${program} get ${server}`
  if (!/^docker-credential-[A-Za-z0-9][A-Za-z0-9._-]*$/.test(program)) {
    throw new GatewayError('CONFIG_INVALID', `credential helper ${JSON.stringify(helper)}: not a program name`)
  }
  const { output, status } = await run(
    program,
    server,
    AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
  ).catch((error: unknown) => {
    if (signal.aborted) throw error
    throw new GatewayError('CREDENTIALS_REJECTED', `${subject}: ${reasonOf(error, timeoutMs)}`, { cause: error })
  })
  // Helpers say "not found" on stdout and exit 1 (docker-credential-helpers, credentials/error.go).
  if (status !== 0 && /credentials not found/i.test(output)) return undefined
  if (status !== 0) {
    throw new GatewayError(
      'CREDENTIALS_REJECTED',
      `${subject}: exit status ${status ?? 'unknown'}; run it by hand to see why`,
    )
  }
  const secret = parseOutput(output)
  if (secret === undefined)
    throw new GatewayError('CREDENTIALS_REJECTED', `${subject}: the answer holds no Username and Secret`)
  return secret
}

function run(program: string, input: string, signal: AbortSignal): Promise<{ output: string; status: number | null }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], {
      shell: false,
      stdio: ['pipe', 'pipe', 'ignore'],
      signal,
      killSignal: 'SIGKILL',
    })
    const chunks: Buffer[] = []
    let length = 0
    child.once('error', reject)
    child.stdout.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length <= MAX_OUTPUT_BYTES) {
        chunks.push(chunk)
        return
      }
      child.kill('SIGKILL')
      reject(new Error(`more than ${MAX_OUTPUT_BYTES} bytes of output`))
    })
    child.once('close', (status) => resolve({ output: Buffer.concat(chunks).toString('utf8'), status }))
    // A helper that does not read its input must not end us by EPIPE.
    child.stdin.on('error', () => undefined)
    child.stdin.end(`${input}\n`)
  })
}

function reasonOf(error: unknown, timeoutMs: number): string {
  if (!(error instanceof Error)) return 'it failed'
  if ('code' in error && error.code === 'ENOENT') return 'no such program on PATH'
  if ('code' in error && error.code === 'EACCES') return 'the program may not be executed'
  return error.name === 'AbortError' || error.name === 'TimeoutError'
    ? `no answer within ${timeoutMs} ms`
    : error.message
}

function parseOutput(output: string): Secret | undefined {
  try {
    const answer: unknown = JSON.parse(output)
    if (typeof answer !== 'object' || answer === null || !('Username' in answer) || !('Secret' in answer))
      return undefined
    const { Username: username, Secret: password } = answer
    return typeof username === 'string' && typeof password === 'string' && password !== ''
      ? { username, password }
      : undefined
  } catch {
    return undefined
  }
}
