/** Reaching the operator's desk for a command: of the running gateway, else of the folder itself. */
import type { Config } from '../config/config.ts'
import { codeOf, GatewayError } from '../errors.ts'
import type { OperatorDesk } from '../keeping/operator.ts'
import { AdminClient, NobodyListens } from './admin-client.ts'
import { EXIT } from './exit.ts'
import { loadChosenConfig, writeProblems, writeWarnings, type ConfigChoice } from './problems.ts'
import type { Runtime } from './runtime.ts'
import { printable } from './table.ts'
import type { Output, Surroundings } from './terminal.ts'

export interface DeskChoice extends ConfigChoice {
  /** One JSON document on standard output instead of text. */
  readonly json?: boolean | undefined
}

export interface DeskWorld {
  readonly openRuntime: () => Promise<Runtime>
  readonly world: Surroundings
}

/** Runs a command's work at the desk and resolves to its exit code; what goes wrong is said in one line. */
export async function atDesk(
  choice: DeskChoice,
  { openRuntime, world }: DeskWorld,
  work: (desk: OperatorDesk) => Promise<number>,
): Promise<number> {
  const { config, problems, warnings } = loadChosenConfig(choice, world)
  writeWarnings(warnings, world.err)
  if (config === undefined) {
    writeProblems(problems, world.err)
    return EXIT.usage
  }
  try {
    return await work(new AdminClient(adminOf(config)))
  } catch (error) {
    if (!(error instanceof NobodyListens)) return refuse(error, world)
  }
  try {
    const runtime = await openRuntime()
    await using desk = await runtime.openFolderDesk(config)
    return await work(desk)
  } catch (error) {
    return refuse(codeOf(error) === 'STORE_UNUSABLE' ? withAdminHint(error, config) : error, world)
  }
}

/** One JSON document. */
export function writeJson(document: unknown, out: Output): void {
  out.write(`${JSON.stringify(document, null, 2)}\n`)
}

function refuse(error: unknown, { err }: Surroundings): number {
  const isOurs = error instanceof GatewayError
  const text = isOurs || !(error instanceof Error) ? printable(messageOf(error)) : (error.stack ?? error.message)
  err.write(`${err.paint('red', 'error:')} ${text}\n`)
  return codeOf(error) === 'BAD_REQUEST' || codeOf(error) === 'ROUTE_UNKNOWN' ? EXIT.usage : EXIT.failure
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** A gateway may run and still not be found: then its admin address is not the one this configuration names. */
function withAdminHint(error: unknown, config: Config): GatewayError {
  const text = `${messageOf(error)}; nobody listens at ${adminOf(config).url}: is admin.address the one the gateway runs with?`
  return new GatewayError('STORE_UNUSABLE', text, { cause: error })
}

function adminOf({ admin }: Config): { readonly url: string; readonly token: string | undefined } {
  const { host, port } = admin.address
  const isAny = host === undefined || host === '' || host === '0.0.0.0' || host === '::'
  const name = isAny ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
  return { url: `http://${name}:${port}`, token: admin.token?.reveal() }
}
