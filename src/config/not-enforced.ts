/**
 * Keys that are read and checked but have no effect yet. Said at every start, so that nobody relies on them. A test holds
 * this list and the documentation together. It shrinks.
 */
import { formatPlace, type KeyPath, type Source } from './source.ts'

export const GATEWAY_WITHOUT_EFFECT: readonly KeyPath[] = []

export const UPSTREAM_WITHOUT_EFFECT: readonly KeyPath[] = []

/** A warning for each key of `paths` that the file sets. */
export function warnOfUnenforced(source: Source, paths: readonly KeyPath[]): string[] {
  return paths
    .filter((path) => isWritten(source.raw, path))
    .map((path) => `${formatPlace(source.placeOf(path))} ${path.join('.')}: is not enforced yet in this version`)
}

function isWritten(raw: unknown, path: KeyPath): boolean {
  const [key, ...rest] = path
  if (key === undefined) return true
  if (typeof raw !== 'object' || raw === null) return false
  const value: unknown = Reflect.get(raw, key)
  return value !== undefined && isWritten(value, rest)
}
