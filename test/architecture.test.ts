/** The import rules of style.md section 3, read from the source. A failure names the file, the import and the rule. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '../src')

interface Import {
  /** Path within `src`, or the package as written. */
  readonly target: string
  readonly isOurs: boolean
  /** Nothing of it is left at run time. */
  readonly isType: boolean
}

interface Source {
  readonly path: string
  /** First folder, or the file itself when it lies at the top. */
  readonly part: string
  readonly text: string
  readonly imports: readonly Import[]
}

const IMPORT =
  /^(?:import|export)\s+(type\s+)?(\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+(?:\s*,\s*\{[^}]*\})?)\s+from\s+'([^'\n]+)'/gm
const BARE = /^import\s+'([^'\n]+)'/gm
const DYNAMIC = /\bimport\(\s*'([^']+)'\s*\)/g

function read(file: string): Source {
  const path = relative(root, file)
  const text = readFileSync(file, 'utf8')
  const importOf = (target: string, isType: boolean): Import => {
    const isOurs = target.startsWith('.')
    return { target: isOurs ? relative(root, join(dirname(file), target)) : target, isOurs, isType }
  }
  const imports = [...text.matchAll(IMPORT)].map(([, type, names = '', target = '']) => {
    const named = /^\{([^]*)\}$/
      .exec(names.trim())?.[1]
      ?.split(',')
      .map((name) => name.trim())
    const allTypes = named?.filter((name) => name !== '').every((name) => name.startsWith('type ')) ?? false
    return importOf(target, type !== undefined || allTypes)
  })
  imports.push(...[...text.matchAll(BARE), ...text.matchAll(DYNAMIC)].map(([, target = '']) => importOf(target, false)))
  return { path, part: path.split('/')[0] ?? path, text, imports }
}

const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .sort()
  .map((name) => read(join(root, name)))

/** Every import that breaks a rule, as one readable line each. */
function breaches(allows: (source: Source, imported: Import) => boolean): string[] {
  return sources.flatMap((source) =>
    source.imports
      .filter((imported) => !allows(source, imported))
      .map(({ target, isType }) => `src/${source.path} imports ${isType ? 'types of ' : ''}${target}`),
  )
}

function none(found: readonly string[], rule: string): void {
  assert.deepEqual(found, [], `${rule}\n  ${found.join('\n  ')}\n`)
}

const partOf = (target: string): string => target.split('/')[0] ?? target
const isAny = (path: string, ...places: readonly string[]): boolean =>
  places.some((place) => path === place || path.startsWith(`${place}/`))

/** Free for all: vocabulary and mechanics. */
const FOUNDATION = ['oci', 'async', 'errors.ts', 'telemetry']
const PORTS = ['store/store.ts', 'ledger/ledger.ts', 'upstream/upstream.ts', 'coordination/coordinator.ts']
/** The files that build the graph: the composition root, and what was cut out of it. */
const isComposition = ({ path, part }: Source): boolean => path === 'gateway.ts' || part === 'gateway'

/** What each part may import of ours, beside itself and the foundation. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  oci: [],
  async: [],
  'errors.ts': [],
  telemetry: [],
  store: [],
  ledger: [],
  upstream: [],
  coordination: [],
  cache: [],
  keeping: [],
  routing: [],
  access: [],
  // Overlaps, and lines of an htpasswd file, are told with their place, by the rules that stand in their parts.
  config: ['routing/authority.ts', 'routing/pattern.ts', 'access/htpasswd.ts'],
  registry: ['cache', 'http/reply.ts'],
  http: ['registry', 'routing', 'access'],
  admin: [],
}
/** What each part may import as types only. */
const MAY_IMPORT_TYPES: Readonly<Record<string, readonly string[]>> = {
  cache: PORTS,
  keeping: PORTS,
  registry: ['routing/route.ts'],
  admin: ['http', 'keeping'],
}

test('there is something to check', () => {
  assert.ok(sources.length > 20)
  assert.ok(sources.some(({ imports }) => imports.some(({ isOurs, isType }) => isOurs && isType)))
  assert.ok(sources.every(({ imports }) => imports.every(({ target }) => target !== '')))
})

test('the foundation imports only itself and node', () => {
  const rule = 'oci, async, errors.ts and telemetry import only node: and each other (telemetry: its own libraries too)'
  const found = breaches(({ part }, { target, isOurs }) => {
    if (!FOUNDATION.includes(part)) return true
    return isOurs ? isAny(target, ...FOUNDATION) : target.startsWith('node:') || part === 'telemetry'
  })
  none(found, rule)
})

test('each part imports only the parts it stands on', () => {
  const found = breaches((source, { target, isOurs, isType }) => {
    if (!isOurs || isComposition(source) || source.path === 'main.ts' || source.part === 'cli') return true
    if (partOf(target) === source.part || isAny(target, ...FOUNDATION)) return true
    if (isAny(target, ...(MAY_IMPORT[source.part] ?? []))) return true
    return isType && isAny(target, ...(MAY_IMPORT_TYPES[source.part] ?? []))
  })
  none(found, 'a part sees what stands below it (MAY_IMPORT in this test); ports are seen by `import type`')
})

test('every part is known to these rules', () => {
  const unknown = sources.filter(
    (source) =>
      !isComposition(source) && !['main.ts', 'cli'].includes(source.part) && MAY_IMPORT[source.part] === undefined,
  )
  none([...new Set(unknown.map(({ part }) => `src/${part}`))], 'a new part needs a line in MAY_IMPORT')
})

test('only cli calls the composition root, only main.ts calls cli', () => {
  const found = breaches((source, { target, isOurs }) => {
    if (!isOurs) return true
    if (partOf(target) === 'cli') return ['cli', 'main.ts'].includes(source.part)
    return !isAny(target, 'gateway.ts', 'gateway') || source.part === 'cli' || isComposition(source)
  })
  none(found, 'gateway.ts and src/gateway are called by cli alone, cli by main.ts alone')
})

test('below the composition root nobody receives the configuration', () => {
  const found = breaches((source, { target }) => {
    return !isAny(target, 'config') || ['config', 'cli', 'main.ts'].includes(source.part) || isComposition(source)
  })
  none(found, 'each class has its own small options; config is read by cli and the composition root')
})

/** No I/O and no clock: `now` and randomness are arguments. */
const PURE = [
  'routing/route.ts',
  'routing/table.ts',
  'routing/authority.ts',
  'routing/pattern.ts',
  'registry/path.ts',
  'registry/range.ts',
  'registry/headers.ts',
  'async/intervals.ts',
  'cache/freshness.ts',
  'keeping/policy.ts',
  'upstream/scope.ts',
  'upstream/challenge.ts',
  'access/rules.ts',
  'access/htpasswd.ts',
]

test('pure modules do no I/O and read no clock', () => {
  const pure = sources.filter(({ path }) => PURE.includes(path))
  const found = pure.flatMap(({ path, text, imports }) => [
    ...imports.filter(({ target }) => target.startsWith('node:')).map(({ target }) => `src/${path} imports ${target}`),
    ...[
      ...withoutComments(text).matchAll(
        /\b(?:Date\.now|new Date\(\)|performance\.now|Math\.random|setTimeout|fetch)\b/g,
      ),
    ].map(([call]) => `src/${path} uses ${call}`),
  ])
  none(found, `pure: ${PURE.join(' ')}`)
  const needing = pure.flatMap((source) =>
    source.imports
      .filter(
        ({ target, isOurs, isType }) =>
          isOurs && !isType && !PURE.includes(target) && !isAny(target, 'oci', 'errors.ts'),
      )
      .map(({ target }) => `src/${source.path} imports ${target}`),
  )
  none(
    needing.filter((line) => !line.startsWith('src/access/')),
    'a pure module stands on pure modules alone',
  )
})

/** One home per dependency: whoever else needs it asks that place. `type` marks where its types may be seen as well. */
const HOMES: Readonly<Record<string, { readonly in: readonly string[]; readonly type?: readonly string[] }>> = {
  hono: { in: ['http', 'admin'] },
  '@hono/node-server': { in: ['http/server.ts'], type: ['http', 'admin'] },
  undici: { in: ['upstream/transport.ts'], type: ['upstream'] },
  yaml: { in: ['config'] },
  zod: { in: ['config', 'admin'] },
  commander: { in: ['cli'] },
  pino: { in: ['telemetry'] },
  'prom-client': { in: ['telemetry'] },
  'lru-cache': { in: ['cache', 'upstream/token.ts'] },
  picomatch: { in: ['access', 'upstream/credentials.ts', 'keeping', 'cache'] },
  bcryptjs: { in: ['access/bcrypt-worker.ts'] },
  'ipaddr.js': { in: ['upstream'] },
  // The folder's lock is an exclusive SQLite lock in it.
  'node:sqlite': { in: ['ledger/sqlite', 'store/fs/folder-lock.ts'] },
  'node:child_process': { in: ['upstream/helper.ts', 'cli'] },
  'node:worker_threads': { in: ['store/fs', 'ledger/sqlite', 'access'] },
  'node:http': { in: ['http'], type: ['admin'] },
  'node:https': { in: ['http'] },
  // The store; what reads configuration, secrets and certificates; the ledger's own folder; commands.
  'node:fs': {
    in: [
      'store/fs',
      'config',
      'cli',
      'ledger/sqlite',
      'access/htpasswd-file.ts',
      'gateway.ts',
      'gateway/namespaces.ts',
      'gateway/open-desk.ts',
      'gateway/upstream-options.ts',
    ],
  },
}

test('each dependency has one home', () => {
  const found = breaches(({ path }, { target, isOurs, isType }) => {
    if (isOurs) return true
    const home = HOMES[packageOf(target)]
    if (home === undefined) return target.startsWith('node:')
    return isAny(path, ...home.in) || (isType && isAny(path, ...(home.type ?? [])))
  })
  none(found, 'one home per dependency (HOMES in this test); a new one needs a line there and in docs/dependencies.md')
})

function packageOf(target: string): string {
  const [first = '', second = ''] = target.split('/')
  return first.startsWith('@') ? `${first}/${second}` : first
}

test('only config and the start of the command line read the environment', () => {
  const readers = sources.filter(
    ({ path, text }) =>
      withoutComments(text).includes('process.env') && !isAny(path, 'config', 'cli/run.ts', 'main.ts'),
  )
  none(
    readers.map(({ path }) => `src/${path} reads process.env`),
    'secrets and settings come through config',
  )
})

test('there are no cycles', () => {
  const graph = new Map(
    sources.map(({ path, imports }) => [path, imports.filter(({ isOurs }) => isOurs).map(({ target }) => target)]),
  )
  const done = new Set<string>()
  const cycles: string[] = []
  const visit = (path: string, trail: readonly string[]): void => {
    const seenAt = trail.indexOf(path)
    if (seenAt !== -1) cycles.push([...trail.slice(seenAt), path].join(' -> '))
    if (seenAt !== -1 || done.has(path)) return
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of graph.keys()) visit(path, [])
  none(cycles, 'imports go one way, types included')
})

test('every import of ours names a file that is there', () => {
  const known = new Set(sources.map(({ path }) => path))
  none(
    breaches((_source, { target, isOurs }) => !isOurs || known.has(target)),
    'imports end in .ts and exist',
  )
})

test('there are no barrel files and no default exports', () => {
  const barrels = sources.filter(({ text }) => {
    const code = withoutComments(text).trim()
    return (
      code !== '' &&
      code.replace(/^export\s+(?:type\s+)?(?:\*(?:\s+as\s+\w+)?|\{[^}]*\})\s+from\s+'[^']+'\s*;?$/gm, '').trim() === ''
    )
  })
  none(
    barrels.map(({ path }) => `src/${path} only exports what others hold`),
    'import from where a thing lives',
  )
  const defaults = sources.filter(({ text }) => /^export default/m.test(text))
  none(
    defaults.map(({ path }) => `src/${path} has a default export`),
    'named exports only',
  )
})

test('nothing happens at import: no state lives in a module', () => {
  const found = sources.flatMap(({ path, text }) =>
    [
      ...text.matchAll(
        /^(?:export )?(?:let|var) \w+|^(?:export )?const \w+(?:: (?!Readonly)[^=\n]+)? = new (?:Map|Set|WeakMap|WeakSet|LRUCache)\b/gm,
      ),
    ].map(([line]) => `src/${path}: ${line}`),
  )
  none(found, 'state belongs to an object that somebody made; a constant set is a ReadonlySet')
})

function withoutComments(text: string): string {
  return text.replace(/\/\*[^]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '')
}
