/** The command line: which command, with which options, and what the help says. */
import { Command, CommanderError, type OptionValues } from 'commander'
import { check, type CheckOptions } from './check.ts'
import { EXIT } from './exit.ts'
import type { ConfigChoice } from './problems.ts'
import type { Runtime } from './runtime.ts'
import { serve, type ProcessEvents } from './serve.ts'
import type { Surroundings } from './terminal.ts'

export interface ProgramOptions {
  /** Without the names of node and script. */
  readonly arguments: readonly string[]
  /** Opened by the commands that need it, so that `--help` loads nothing else. */
  readonly openRuntime: () => Promise<Runtime>
  readonly world: Surroundings
  readonly events: ProcessEvents
}

const CONFIG_HELP = 'entrepot.yaml (default: the one in this folder if there is one, else the shipped configuration)'

/** Runs one command line and resolves to its exit code. */
export async function runProgram({ arguments: words, openRuntime, world, events }: ProgramOptions): Promise<number> {
  let exitCode: number = EXIT.ok
  const program = new Command('entrepot')
  program
    .description('One gateway in front of every container registry a site pulls from.')
    .version(world.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .configureOutput({ writeOut: (text) => world.out.write(text), writeErr: (text) => world.err.write(text) })
    .showSuggestionAfterError()
    .exitOverride()
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 failed, 2 wrong command line or configuration.\nEvery key of the configuration: docs/configuration.md',
    )
  addCommand(program, 'serve', 'serve clients until SIGTERM or Ctrl-C')
    .option('-d, --data <folder>', 'folder of everything held, instead of the one the configuration names')
    .addHelpText('after', SERVE_HELP)
    .action(async (options: OptionValues & ConfigChoice) => {
      exitCode = await serve(options, openRuntime, world, events)
    })
  addCommand(program, 'check', 'check the configuration, then reach each upstream: DNS, TLS, auth, one HEAD')
    .option('--json', 'print one JSON document')
    .option('--offline', 'check the configuration only, call no upstream')
    .addHelpText('after', CHECK_HELP)
    .action(async (options: OptionValues & CheckOptions) => {
      exitCode = await check(options, openRuntime, world)
    })
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // Help and version end by an error with code 0; help that nobody asked for is a wrong command line.
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  }
  return exitCode
}

function addCommand(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .helpOption('-h, --help', 'print help')
    .option('-c, --config <file>', CONFIG_HELP)
}

const SERVE_HELP = `
Standard output carries the log: readable lines on a terminal, JSON lines otherwise. Standard error carries where it
listens and what it serves. SIGTERM and Ctrl-C let running transfers end; a second one exits at once.

  entrepot serve                                  everything that is shipped, on 127.0.0.1:5000
  entrepot serve --config /etc/entrepot/entrepot.yaml
  entrepot serve --data /srv/cache`

const CHECK_HELP = `
Exits with 2 when the configuration has problems (all of them are printed, as file:line:column), with 1 when an
upstream cannot be reached or refuses its credentials, else with 0. Nothing is stored or served.

  entrepot check --offline                        before a commit to the configuration
  entrepot check --json | jq '.upstreams[] | select(.ok | not)'`
