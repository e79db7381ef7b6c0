/** `origin.json`: which registry the bytes of a namespace come from, so that an edited url never serves foreign bytes. */
import { open, rename, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { GatewayError } from '../../errors.ts'
import { ORIGIN, TEMPORARY_SUFFIX } from '../layout.ts'
import { storeError } from './fs-error.ts'
import { readSmallFile } from './small-file.ts'

export interface Origin {
  /** Host (and port) of the registry's url. */
  readonly registry: string
  /** ISO 8601. */
  readonly createdAt: string
}

const MAX_ORIGIN_BYTES = 4096

/** Reads a namespace's origin; undefined when it has none. Throws `STORE_UNUSABLE` when it is damaged. */
export async function loadOrigin(root: string): Promise<Origin | undefined> {
  const path = join(root, ORIGIN)
  const bytes = await readSmallFile(path, MAX_ORIGIN_BYTES)
  if (bytes === undefined) return undefined
  const origin = parseOrigin(bytes.toString('utf8'))
  if (origin !== undefined) return origin
  throw new GatewayError(
    'STORE_UNUSABLE',
    `${path} is damaged; if you know that ${root} holds the right registry's bytes, delete it and start again: rm ${quote(path)}`,
  )
}

/** Writes a namespace's origin durably, creating its folder. */
export async function writeOrigin(root: string, origin: Origin): Promise<void> {
  const path = join(root, ORIGIN)
  const temporary = path + TEMPORARY_SUFFIX
  try {
    await mkdir(root, { recursive: true, mode: 0o755 })
    {
      await using file = await open(temporary, 'w', 0o644)
      await file.writeFile(`${JSON.stringify(origin)}\n`)
      await file.sync()
    }
    await rename(temporary, path)
  } catch (error) {
    throw storeError('write', path, error)
  }
}

/** Throws `STORE_UNUSABLE` when the bytes in `root` are of another registry than `registry`. */
export function checkOrigin(root: string, name: string, held: Origin, registry: string): void {
  if (held.registry === registry) return
  throw new GatewayError(
    'STORE_UNUSABLE',
    [
      `${root} holds bytes of ${held.registry}, but upstream ${name} is configured for ${registry}`,
      `set its url back to ${held.registry}`,
      `or start anew and keep the old bytes aside: mv ${quote(root)} ${quote(`${root}.old`)}`,
      `or, if ${registry} serves the same content, adopt them: rm ${quote(join(root, ORIGIN))}`,
    ].join('; '),
  )
}

/** Quotes a path for a shell, where it needs that. */
export function quote(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`
}

function parseOrigin(text: string): Origin | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return undefined
    if (!('registry' in value && typeof value.registry === 'string' && value.registry !== '')) return undefined
    const createdAt = 'createdAt' in value && typeof value.createdAt === 'string' ? value.createdAt : ''
    return { registry: value.registry, createdAt }
  } catch {
    return undefined
  }
}
