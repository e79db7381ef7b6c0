/**
 * Reads entrepot.yaml and the upstreams' files into a `Config`, or into every problem they have, at once. The only place
 * that reads configuration files; nothing is dialled and nothing is written.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, extname, join, relative, resolve } from 'node:path'
import { checkClients, identifiesClients } from './check-clients.ts'
import { checkOverlaps } from './check-overlaps.ts'
import { checkSource } from './check-source.ts'
import { checkUpstream } from './check-upstream.ts'
import type { Config, ConfigPlaces } from './config.ts'
import { declareUpstream, type DeclaredUpstream } from './declared.ts'
import { gatewaySchema, type GatewayFile } from './gateway-schema.ts'
import { gatewayJsonSchema, upstreamJsonSchema } from './json-schema.ts'
import { checkListeners, planListeners } from './listeners.ts'
import { GATEWAY_WITHOUT_EFFECT, UPSTREAM_WITHOUT_EFFECT, warnOfUnenforced } from './not-enforced.ts'
import { formatPlace, NO_FILE, sortProblems, Source, type Problem } from './source.ts'
import { upstreamSchema } from './upstream-schema.ts'

export interface LoadOptions {
  /** entrepot.yaml. Default: `entrepot.yaml` in `workingFolder` if there is one, else defaults for everything. */
  readonly configFile?: string | undefined
  /** Stands over `data` of the file; the ledger's default follows it. */
  readonly dataFolder?: string | undefined
  /** Upstreams' files that ship with the program: used where neither the file nor its folder has any. */
  readonly shippedUpstreams: string
  /** Relative paths of these options start here, and names of files are shown from here. */
  readonly workingFolder: string
  readonly env: Readonly<Record<string, string | undefined>>
}

/** `config` is undefined exactly when there are problems. Problems are sorted by place. */
export type LoadedConfig =
  | {
      readonly config: Config
      readonly places: ConfigPlaces
      readonly problems: readonly []
      readonly warnings: readonly string[]
    }
  | { readonly config: undefined; readonly problems: readonly Problem[]; readonly warnings: readonly string[] }

const DEFAULT_FILE = 'entrepot.yaml'
const OTHER_SUFFIX = 'entrepot.yml'
const DEFAULT_UPSTREAMS = 'upstreams.d'
/** A configuration file above this is some other file. */
const MAX_FILE_BYTES = 1024 * 1024
/** A gateway holds a connection pool for each upstream; a folder with more files is some other folder. */
const MAX_UPSTREAMS = 1000

/** Loads the configuration. Never throws for what is in the files or missing: that gives problems. */
export function loadConfig(options: LoadOptions): LoadedConfig {
  return new Loader(options).load()
}

class Loader {
  readonly #options: LoadOptions
  readonly #problems: Problem[] = []
  readonly #warnings = new Set<string>()

  constructor(options: LoadOptions) {
    this.#options = options
  }

  load(): LoadedConfig {
    const main = this.#readMain()
    const file = this.#checkMain(main.source, main.folder)
    const upstreamsFolder = file.upstreams ?? this.#defaultUpstreams(main.folder)
    const { sources, declared } = this.#loadUpstreams(upstreamsFolder, main.source)
    const upstreams = declared.map(({ upstream }) => upstream)
    const listeners = planListeners(file.listen, upstreams)
    const isIdentified = identifiesClients(file.clients, listeners)
    this.#problems.push(
      ...checkOverlaps(declared),
      ...declared.flatMap((upstream) => checkUpstream(upstream, isIdentified)),
    )
    const { clients, trustedProxies } = file
    const checked = checkClients({ main: main.source, clients, listeners, trustedProxies, declared })
    this.#problems.push(...checked.problems)
    for (const warning of checked.warnings) this.#warnings.add(warning)
    for (const { path, message } of checkListeners(file, upstreams, [...sources.keys()])) {
      this.#problems.push(main.source.problemAt(path, message))
    }
    this.#sayWhatIsNotEnforced(main.source, declared)
    this.#sayWhichSecretsAreWritten(main.source, file, declared)
    const warnings = [...this.#warnings]
    if (this.#problems.length > 0) return { config: undefined, problems: sortProblems(this.#problems), warnings }
    const { listen: _, ...rest } = file
    const data = this.#options.dataFolder === undefined ? file.data : this.#absolute(this.#options.dataFolder)
    const ledger = file.ledger ?? join(data, 'ledger.sqlite')
    const config: Config = {
      ...rest,
      data,
      ledger,
      upstreamsFolder,
      upstreams,
      listeners,
    }
    return { config, places: new Places(main.isFile ? main.source : undefined, declared), problems: [], warnings }
  }

  #readMain(): { readonly source: Source; readonly folder: string; readonly isFile: boolean } {
    const { configFile, workingFolder } = this.#options
    const path = this.#absolute(configFile ?? DEFAULT_FILE)
    const isFile = configFile !== undefined || statSync(path, { throwIfNoEntry: false }) !== undefined
    if (!isFile) this.#sayWhatIsNotRead()
    if (!isFile) return { source: new Source(NO_FILE, ''), folder: workingFolder, isFile }
    return { source: this.#read(path) ?? new Source(this.#shown(path), ''), folder: dirname(path), isFile }
  }

  /** A file under the other usual name: who wrote it thinks that it counts. */
  #sayWhatIsNotRead(): void {
    const other = this.#absolute(OTHER_SUFFIX)
    if (statSync(other, { throwIfNoEntry: false }) === undefined) return
    this.#warnings.add(`${OTHER_SUFFIX} is not read: rename it to ${DEFAULT_FILE}, or name it by --config`)
  }

  #checkMain(source: Source, folder: string): GatewayFile {
    const schema = gatewaySchema({ folder, env: this.#options.env, warn: (message) => this.#warn(source, message) })
    const { value, problems } = checkSource(source, schema, gatewayJsonSchema)
    this.#problems.push(...problems)
    return value ?? schema.parse({})
  }

  #defaultUpstreams(folder: string): string {
    const beside = join(folder, DEFAULT_UPSTREAMS)
    return statSync(beside, { throwIfNoEntry: false })?.isDirectory() ? beside : this.#options.shippedUpstreams
  }

  #loadUpstreams(
    folder: string,
    main: Source,
  ): { readonly sources: ReadonlyMap<string, Source>; readonly declared: readonly DeclaredUpstream[] } {
    const sources = new Map<string, Source>()
    const declared: DeclaredUpstream[] = []
    for (const file of this.#listUpstreams(folder, main)) {
      const source = this.#read(join(folder, file))
      if (source === undefined) continue
      const schema = upstreamSchema({ folder, env: this.#options.env, warn: (message) => this.#warn(source, message) })
      const { value, problems } = checkSource(source, schema, upstreamJsonSchema)
      this.#problems.push(...problems)
      const fileName = basename(file, extname(file))
      sources.set(value?.name ?? nameIn(source.raw) ?? fileName, source)
      if (value !== undefined) declared.push({ upstream: declareUpstream(value, fileName), source })
    }
    return { sources, declared }
  }

  #listUpstreams(folder: string, main: Source): string[] {
    const shown = this.#shown(folder)
    try {
      const files = readdirSync(folder)
        .filter((file) => /^[^.].*\.ya?ml$/.test(file))
        .toSorted()
      if (files.length > 0 && files.length <= MAX_UPSTREAMS) return files
      const why =
        files.length === 0
          ? 'holds no *.yaml file, so nothing could be pulled'
          : `holds ${files.length} files, ${MAX_UPSTREAMS} at most are read`
      this.#problems.push(main.problemAt(['upstreams'], `the folder ${shown} ${why}`))
    } catch (error) {
      this.#problems.push(main.problemAt(['upstreams'], `cannot read the folder ${shown}: ${reasonOf(error)}`))
    }
    return []
  }

  /** Undefined when it cannot be read, which is a problem then. */
  #read(path: string): Source | undefined {
    const shown = this.#shown(path)
    try {
      const { size } = statSync(path)
      if (size > MAX_FILE_BYTES) throw new Error(`${size} bytes are too many for a configuration file`)
      return new Source(shown, readFileSync(path, 'utf8'))
    } catch (error) {
      this.#problems.push({ file: shown, line: 1, column: 1, key: '', message: `cannot be read: ${reasonOf(error)}` })
      return undefined
    }
  }

  /** What is parsed but has no effect yet. */
  #sayWhatIsNotEnforced(main: Source, declared: readonly DeclaredUpstream[]): void {
    const warnings = [
      ...warnOfUnenforced(main, GATEWAY_WITHOUT_EFFECT),
      ...declared.flatMap(({ source }) => warnOfUnenforced(source, UPSTREAM_WITHOUT_EFFECT)),
    ]
    for (const warning of warnings) this.#warnings.add(warning)
  }

  /** A secret in the file itself is in its copies and its history too. */
  #sayWhichSecretsAreWritten(main: Source, { admin }: GatewayFile, declared: readonly DeclaredUpstream[]): void {
    const secrets = [
      { source: main, path: ['admin', 'token'], secret: admin.token },
      ...declared.flatMap(({ source, upstream: { auth = [] } }) =>
        auth.map(({ password: secret }, index) => ({ source, path: ['auth', index, 'password'], secret })),
      ),
    ]
    for (const { source, path, secret } of secrets) {
      if (secret?.origin !== 'text') continue
      const { key } = source.problemAt(path, '')
      this.#warnings.add(
        `${formatPlace(source.placeOf(path))} ${key}: the secret itself is written here; write env:NAME or file:PATH`,
      )
    }
  }

  #warn(source: Source, message: string): void {
    this.#warnings.add(`${source.file}: ${message}`)
  }

  #absolute(path: string): string {
    return resolve(this.#options.workingFolder, path)
  }

  #shown(path: string): string {
    const short = relative(this.#options.workingFolder, path)
    return short.startsWith('..') ? path : short
  }
}

class Places implements ConfigPlaces {
  readonly #main: Source | undefined
  readonly #byName: ReadonlyMap<string, Source>

  constructor(main: Source | undefined, declared: readonly DeclaredUpstream[]) {
    this.#main = main
    this.#byName = new Map(declared.map(({ upstream, source }) => [upstream.name, source]))
  }

  gateway(path: readonly PropertyKey[]): ReturnType<ConfigPlaces['gateway']> {
    return this.#main?.placeOf(path)
  }

  upstream(name: string, path: readonly PropertyKey[]): ReturnType<ConfigPlaces['upstream']> {
    return this.#byName.get(name)?.placeOf(path)
  }
}

/** The name a file that could not be understood gives itself, so that mentions of it are not called unknown. */
function nameIn(raw: unknown): string | undefined {
  return hasKey(raw, 'name') && typeof raw.name === 'string' ? raw.name : undefined
}

function hasKey<K extends string>(raw: unknown, key: K): raw is Record<K, unknown> {
  return typeof raw === 'object' && raw !== null && Object.hasOwn(raw, key)
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (!('code' in error)) return error.message
  return error.code === 'ENOENT' ? 'no such file or folder' : String(error.code)
}
