/** Passwords and tokens: values that can be used but not printed. */
import { readFileSync, statSync } from 'node:fs'
import { inspect } from 'node:util'

const HIDDEN = '[secret]'
/** A password file above this is no password file. */
const MAX_SECRET_BYTES = 64 * 1024

/**
 * A secret from the environment, a file, or the configuration itself. Every way of printing it (`String`, JSON, inspect,
 * template) gives `[secret]`; only `reveal` gives the text.
 */
export class Secret {
  /** Where it comes from, fit to be printed: `env:NAME`, `file:/path` or `text`. */
  readonly origin: string
  readonly #reveal: () => string

  private constructor(origin: string, reveal: () => string) {
    this.origin = origin
    this.#reveal = reveal
  }

  /** A secret whose text is known and does not change. */
  static fromText(text: string, origin = 'text'): Secret {
    return new Secret(origin, () => text)
  }

  /**
   * A secret in a file, without the line end at its end. Read now, which throws what reading throws, and again when the
   * file changed; while the changed file cannot be read or is empty the last good text stands, since a rotation swaps
   * files in steps.
   */
  static fromFile(path: string): Secret {
    let text = readSecret(path)
    let stamp = stampOf(path)
    return new Secret(`file:${path}`, () => {
      const now = stampOf(path)
      if (now === undefined || now === stamp) return text
      try {
        text = readSecret(path)
        stamp = now
      } catch {
        // The last good text stands; the next call tries again because `stamp` is still the old one.
      }
      return text
    })
  }

  reveal(): string {
    return this.#reveal()
  }

  toString(): string {
    return HIDDEN
  }

  toJSON(): string {
    return HIDDEN
  }

  [inspect.custom](): string {
    return HIDDEN
  }
}

function readSecret(path: string): string {
  const { size } = statSync(path)
  if (size > MAX_SECRET_BYTES) throw new Error(`holds ${size} bytes, a secret has ${MAX_SECRET_BYTES} at most`)
  const text = readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  if (text === '') throw new Error('is empty')
  return text
}

/** What changes when a file is written or swapped; undefined while it is not there. */
function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`
}
