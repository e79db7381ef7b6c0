/** The command line: which command, with which options, and what the help says. */
import { Command, CommanderError, InvalidArgumentError, type OptionValues } from 'commander'
import { check, type CheckOptions } from './check.ts'
import { EXIT } from './exit.ts'
import type { DeskWorld } from './desk.ts'
import { ls, type LsOptions } from './ls.ts'
import { pin, type PinOptions } from './pin.ts'
import type { ConfigChoice } from './problems.ts'
import { purge, type PurgeOptions } from './purge.ts'
import type { Runtime } from './runtime.ts'
import { serve, type ProcessEvents } from './serve.ts'
import { sweep, type SweepOptions } from './sweep.ts'
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
  addDeskCommands(program, { openRuntime, world }, (code) => (exitCode = code))
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // Help and version end by an error with code 0; help that nobody asked for is a wrong command line.
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  }
  return exitCode
}

/** Commands on what is held: through the running gateway's admin API, or on the folder when none runs. */
function addDeskCommands(program: Command, world: DeskWorld, exit: (code: number) => void): void {
  const data = ['-d, --data <folder>', 'folder of everything held, when no gateway runs'] as const
  const json = ['--json', 'print one JSON document'] as const
  const yes = ['--yes', 'do it; without this nothing is changed'] as const
  addCommand(program, 'ls', 'list the images that are held, with size and last use')
    .argument('[image]', 'UPSTREAM or UPSTREAM/REPOSITORY (default: all)')
    .option(...json)
    .option('--limit <count>', 'most images to list (default: 1000)', parseLimit)
    .option(...data)
    .addHelpText('after', LS_HELP)
    .action(async (image: string | undefined, options: LsOptions) => exit(await ls(image, options, world)))
  addCommand(program, 'pin', 'list what is never evicted, add to it, or take from it')
    .argument('[image]', 'UPSTREAM/REPOSITORY, with :TAG or @DIGEST; * and ** stand for any name')
    .option('--remove', 'remove this pin')
    .option(...json)
    .option(...data)
    .addHelpText('after', PIN_HELP)
    .action(async (image: string | undefined, options: PinOptions) => exit(await pin(image, options, world)))
  addCommand(program, 'purge', 'remove an image, a repository or all of an upstream from the disk')
    .argument('<image>', 'UPSTREAM[/REPOSITORY[:TAG|@DIGEST]]')
    .option(...yes)
    .option(...json)
    .option(...data)
    .addHelpText('after', PURGE_HELP)
    .action(async (image: string, options: PurgeOptions) => exit(await purge(image, options, world)))
  addCommand(program, 'sweep', 'free blobs that no image needs')
    .argument('[upstream]', 'only this one (default: all)')
    .option(...yes)
    .option(...json)
    .option(...data)
    .addHelpText('after', SWEEP_HELP)
    .action(async (upstream: string | undefined, options: SweepOptions) => exit(await sweep(upstream, options, world)))
}

function parseLimit(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('a number from 1 to 9999999')
}

function addCommand(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .helpOption('-h, --help', 'print help')
    .option('-c, --config <file>', CONFIG_HELP)
}

const LS_HELP = `
Asks the running gateway; when none runs, reads the folder itself.

  entrepot ls docker.io
  entrepot ls --json | jq -r '.images[] | select(.pulls == 0) | .repository'`

const PIN_HELP = `
Pinned images are never evicted, whatever is short. Those under keep.pin in an upstream's file are listed too.

  entrepot pin docker.io/alpine:3.20
  entrepot pin 'ghcr.io/acme/**'
  entrepot pin --remove 'ghcr.io/acme/**'`

const PURGE_HELP = `
Clients that pull what was purged get it from the upstream again. Pinned images stay. Transfers under way end well.

  entrepot purge docker.io/alpine:3.20            what would go
  entrepot purge docker.io/alpine:3.20 --yes
  entrepot purge quay.io --yes`

const SWEEP_HELP = `
The gateway does this by itself once a day. Blobs younger than an hour stay: their image may be on its way.

  entrepot sweep
  entrepot sweep docker.io --yes`

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
  npm run entrepot -- check --offline             the same in a clone: npm keeps options before the --
  entrepot check --json | jq '.upstreams[] | select(.ok | not)'`
