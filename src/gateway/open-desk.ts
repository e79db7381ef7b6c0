/**
 * The operator's desk with no gateway running: the folder under its lock, the ledger, and no caches in between. Cut out
 * of the composition root; it builds the part of the graph that needs no upstream.
 */
import { readdir } from 'node:fs/promises'
import { globMatcher } from '../access/globs.ts'
import { systemClock } from '../async/clock.ts'
import type { Config, UpstreamConfig } from '../config/config.ts'
import { Desk } from '../keeping/desk.ts'
import { Keeper } from '../keeping/keeper.ts'
import { idleCaches } from '../keeping/namespace.ts'
import type { OperatorDesk } from '../keeping/operator.ts'
import { Pins } from '../keeping/pins.ts'
import { UsageCount } from '../keeping/usage.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { rebuildNamespace } from '../ledger/rebuild.ts'
import { openSqliteLedger } from '../ledger/sqlite/sqlite-ledger.ts'
import { folderOf } from './namespaces.ts'
import { parseManifest } from '../oci/manifest.ts'
import { matchesPattern, parseHostPattern } from '../routing/pattern.ts'
import { DataFolder } from '../store/fs/data-folder.ts'
import type { Store } from '../store/store.ts'
import { originOf } from './upstream-options.ts'

export interface OpenedDesk extends OperatorDesk, AsyncDisposable {}

/** Opens the folder; dispose the desk to let go of it. Rejects with STORE_UNUSABLE when a gateway has it. */
export async function openFolderDesk(config: Config): Promise<OpenedDesk> {
  await using parts = new AsyncDisposableStack()
  const folder = parts.use(await DataFolder.open({ path: config.data }))
  const ledger = await openSqliteLedger({ path: config.ledger, onError: () => undefined })
  parts.defer(() => ledger.close())
  const observe = (): void => undefined
  const keeper = new Keeper({
    ledger,
    clock: systemClock,
    random: Math.random,
    quotaBytes: config.keep.quota,
    freeFloorBytes: 0,
    observe,
    learn: ({ name, store }) => rebuild(name, store, ledger),
  })
  parts.use(keeper)
  for (const { name, upstream, host } of await namespacesIn(config)) {
    const store = await folder.openNamespace({ name: folderOf(name), origin: originOf(upstream, host) })
    if (!(await ledger.isComplete(name))) await rebuild(name, store, ledger)
    await keeper.add({
      name,
      label: upstream.name,
      store,
      caches: idleCaches,
      pins: new Pins(store, upstream.keep.pin, globMatcher),
      usage: new UsageCount(),
      quotaBytes: upstream.keep.quota,
      idleMs: Math.min(upstream.keep.idle, config.keep.idle),
    })
  }
  const open = parts.move()
  const desk = new Desk({ keeper, ledger, observe })
  return Object.assign(desk, { [Symbol.asyncDispose]: () => open.disposeAsync() })
}

interface NamespaceFound {
  readonly name: string
  readonly upstream: UpstreamConfig
  readonly host: string | undefined
}

/** Every declared upstream, and those hosts of patterns that have a folder. */
async function namespacesIn({ data, upstreams }: Config): Promise<NamespaceFound[]> {
  const found: NamespaceFound[] = upstreams
    .filter(({ isPattern }) => !isPattern)
    .map((upstream) => ({ name: upstream.name, upstream, host: undefined }))
  const taken = new Set(found.map(({ name }) => folderOf(name)))
  const patterns = upstreams.flatMap((upstream) => {
    const pattern = upstream.isPattern ? parseHostPattern(upstream.name) : undefined
    return pattern === undefined ? [] : [{ upstream, pattern }]
  })
  for (const entry of await readdir(data, { withFileTypes: true })) {
    if (!entry.isDirectory() || taken.has(entry.name)) continue
    const match = patterns.find(({ pattern }) => matchesPattern(pattern, entry.name))
    if (match !== undefined) found.push({ name: entry.name, upstream: match.upstream, host: entry.name })
  }
  return found
}

async function rebuild(namespace: string, store: Store, ledger: Ledger): Promise<void> {
  const signal = new AbortController().signal
  await rebuildNamespace({ namespace, store, ledger, parse: parseManifest, signal, report: () => undefined })
}
