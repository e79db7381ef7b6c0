/**
 * Scalars of the configuration: one builder a kind, each with its own sentence for a wrong value and its own part of the
 * JSON Schema. Whatever kind a value has, it may be written `env:NAME`: that is resolved here and nowhere else.
 */
import { accessSync, constants, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { z } from 'zod'
import { parseAddress, parseNetwork } from './addresses.ts'
import { Secret } from './secret.ts'
import { parseDuration, parseShare, parseSize } from './units.ts'

/** What the values of one file are read against. */
export interface Surroundings {
  /** Relative paths in the file start here. */
  readonly folder: string
  readonly env: Readonly<Record<string, string | undefined>>
  /** Takes what is no error but should be looked at. */
  readonly warn: (message: string) => void
}

/** A scalar as read: what the file says, or the text of the variable it names. */
interface Given {
  readonly value: unknown
  /** How to call it in a message: the value itself, or `env:NAME` so that nothing of the environment is printed. */
  readonly shown: string
  readonly isFromEnv: boolean
}

type Parse<T> = (given: Given) => T

/** A value that does not fit. Caught at once by {@link Leaves.build}; the message is what the user reads. */
class Unfit extends Error {}

const ENV_REFERENCE = /^env:(.*)$/s
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
export const ENV_PATTERN = '^env:[A-Za-z_][A-Za-z0-9_]*$'

/** Builds the scalars of one file. */
export class Leaves {
  readonly #surroundings: Surroundings

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings
  }

  text(example: string, form?: { readonly pattern: RegExp; readonly what: string }) {
    return this.#build({ type: 'string', ...(form && { pattern: form.pattern.source }) }, example, (given) => {
      const text = textOf(given, example)
      if (form && !form.pattern.test(text))
        throw new Unfit(`${given.shown} is no ${form.what}, write for example ${example}`)
      return text
    })
  }

  flag() {
    return this.#build({ type: 'boolean' }, 'true', ({ value, shown }) => {
      if (value === true || value === 'true') return true
      if (value === false || value === 'false') return false
      throw new Unfit(`${shown} is neither true nor false`)
    })
  }

  integer(minimum: number, maximum: number, example: string) {
    return this.#build({ type: 'integer', minimum, maximum }, example, (given) => {
      const number = numberOf(given)
      if (!Number.isInteger(number) || number < minimum || number > maximum) {
        throw new Unfit(`${given.shown} is no whole number from ${minimum} to ${maximum}, write for example ${example}`)
      }
      return number
    })
  }

  /** A rate per second; `unlimited` is Infinity. */
  rate(example: string) {
    return this.#build(
      { anyOf: [{ type: 'number', exclusiveMinimum: 0 }, { const: 'unlimited' }] },
      example,
      (given) => {
        const number = given.value === 'unlimited' ? Infinity : numberOf(given)
        if (!(number > 0))
          throw new Unfit(`${given.shown} is no number above 0, write for example ${example} or unlimited`)
        return number
      },
    )
  }

  choice<const T extends string>(...words: readonly T[]) {
    return this.#build({ enum: words }, words[0] ?? '', ({ value, shown }) => {
      const word = words.find((known) => known === value)
      if (word === undefined) throw new Unfit(`${shown} is not one of ${words.join(', ')}`)
      return word
    })
  }

  /** Milliseconds. */
  duration(example: string) {
    return this.#quantity({ what: 'duration', example, units: 'ms, s, m, h or d', parse: parseDuration })
  }

  /** Bytes. */
  size(example: string) {
    return this.#quantity({ what: 'size', example, units: 'B, KiB, MiB, GiB, TiB, kB, MB, GB or TB', parse: parseSize })
  }

  /** A share of the disk, or bytes of it. */
  shareOrSize(example: string) {
    const parse = (text: string): { readonly share: number } | { readonly bytes: number } | undefined => {
      const [share, bytes] = [parseShare(text), parseSize(text)]
      if (share !== undefined) return { share }
      return bytes === undefined ? undefined : { bytes }
    }
    return this.#quantity({ what: 'share or size', example, units: '%, MiB, GiB or TiB', parse })
  }

  /** A path made absolute; nothing need be there. */
  path(example: string) {
    return this.#build({ type: 'string' }, example, (given) => this.#absolute(textOf(given, example)))
  }

  /** The absolute path of a file that is there and can be read. */
  file(example: string) {
    return this.#build({ type: 'string' }, example, (given) => {
      const path = this.#absolute(textOf(given, example))
      try {
        accessSync(path, constants.R_OK)
        if (!statSync(path).isFile()) throw new Error('is not a file')
      } catch (cause) {
        throw new Unfit(`cannot read the file ${path}: ${reasonOf(cause)}`, { cause })
      }
      return path
    })
  }

  /** A secret: `env:NAME`, `file:PATH`, or the text itself, which earns a warning. */
  secret(example: string) {
    return this.#build({ type: 'string' }, example, (given) => {
      const text = textOf(given, example, 'not shown here')
      if (given.isFromEnv) return Secret.fromText(text, given.shown)
      if (!text.startsWith('file:')) return Secret.fromText(text)
      const path = this.#absolute(text.slice('file:'.length))
      try {
        const secret = Secret.fromFile(path)
        const mode = statSync(path).mode & 0o777
        if ((mode & 0o004) !== 0) {
          this.#surroundings.warn(`secret file ${path} can be read by every user of this machine: chmod o-r ${path}`)
        }
        return secret
      } catch (cause) {
        throw new Unfit(`cannot read the secret file ${path}: ${reasonOf(cause)}`, { cause })
      }
    })
  }

  /** Where to listen: `host:port`, or `:port` for all interfaces (host undefined). */
  address(example: string) {
    return this.#build({ type: 'string' }, example, (given) => {
      const address = typeof given.value === 'string' ? parseAddress(textOf(given, example)) : undefined
      if (address) return address
      if (/^\d{1,5}$/.test(String(given.value))) {
        const port = String(given.value)
        throw new Unfit(`is a port without a host, write "127.0.0.1:${port}", or ":${port}" for all interfaces`)
      }
      textOf(given, example)
      throw new Unfit(`${given.shown} is no address, write for example ${example}, or :5000 for all interfaces`)
    })
  }

  /** An http or https URL without credentials, query or fragment; no slash at its end. */
  url(example: string) {
    return this.#build({ type: 'string', pattern: '^(https?://|env:)' }, example, (given) => parseUrl(given, example))
  }

  /** The URL of an egress proxy; credentials in it are allowed, so it is never shown. */
  proxyUrl(example: string) {
    return this.#build({ type: 'string' }, example, (given) => {
      const url = URL.parse(textOf(given, example))
      if (url && ['http:', 'https:'].includes(url.protocol) && url.hostname !== '') return url.href
      throw new Unfit(`is no URL of a proxy, write for example ${example}`)
    })
  }

  /** A network as `address/bits`; a lone address stands for itself. */
  network(example: string) {
    return this.#build({ type: 'string' }, example, (given) => {
      const network = parseNetwork(textOf(given, example))
      if (network !== undefined) return network
      throw new Unfit(`${given.shown} is no network, write for example ${example}`)
    })
  }

  #absolute(path: string): string {
    if (/^~(?:\/|$)/.test(path)) {
      throw new Unfit(`${JSON.stringify(path)} begins with ~, which only a shell replaces: write the whole path`)
    }
    return resolve(this.#surroundings.folder, path)
  }

  #quantity<T>(kind: { what: string; example: string; units: string; parse: (text: string) => T | undefined }) {
    return this.#build({ anyOf: [{ type: 'string' }, { const: 0 }] }, kind.example, (given) => {
      const { value, shown } = given
      const parsed = typeof value === 'string' || value === 0 ? kind.parse(String(value)) : undefined
      if (parsed !== undefined) return parsed
      const why = numberOf(given) >= 0 ? `${shown} has no unit` : `${shown} is no ${kind.what}`
      throw new Unfit(`${why}, write for example ${kind.example} (units: ${kind.units})`)
    })
  }

  #build<T>(schema: Readonly<Record<string, unknown>>, example: string, parse: Parse<T>) {
    const isText = schema['type'] === 'string' && schema['pattern'] === undefined
    const jsonSchema = isText ? schema : { anyOf: [schema, { type: 'string', pattern: ENV_PATTERN }] }
    return z
      .unknown()
      .transform((raw, context): T => {
        try {
          return parse(this.#give(raw, example))
        } catch (error) {
          if (!(error instanceof Unfit)) throw error
          context.addIssue({ code: 'custom', message: error.message })
          return z.NEVER
        }
      })
      .meta(jsonSchema)
  }

  #give(raw: unknown, example: string): Given {
    if (raw === undefined) throw new Unfit(`is missing, write for example ${example}`)
    if (raw === null) throw new Unfit(`is empty: write for example ${example}, or remove the line`)
    if (typeof raw === 'object') throw new Unfit(`is one value, no list and no section; write for example ${example}`)
    const name = typeof raw === 'string' ? ENV_REFERENCE.exec(raw)?.[1] : undefined
    if (name === undefined) return { value: raw, shown: JSON.stringify(raw), isFromEnv: false }
    // What stands there instead of a name may be a secret somebody put in the wrong place.
    if (!ENV_NAME.test(name)) throw new Unfit('env: must be followed by the name of an environment variable')
    const text = this.#surroundings.env[name]
    if (text === undefined) throw new Unfit(`the environment variable ${name} is not set`)
    if (text === '') throw new Unfit(`the environment variable ${name} is empty`)
    return { value: text, shown: `the value of env:${name}`, isFromEnv: true }
  }
}

function textOf({ value, shown }: Given, example: string, instead = shown): string {
  if (typeof value === 'string' && value.trim() !== '') return value
  if (typeof value === 'string') throw new Unfit(`is empty, write for example ${example}`)
  throw new Unfit(`is read as a ${typeof value} (${instead}): put it in quotes`)
}

function numberOf({ value }: Given): number {
  if (typeof value === 'number') return value
  return typeof value === 'string' && /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN
}

/** What a failed read says, without the path and the call that Node puts into its message. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (!('code' in error)) return error.message
  switch (error.code) {
    case 'ENOENT':
      return 'no such file'
    case 'EACCES':
      return 'permission denied'
    case 'EISDIR':
      return 'is a folder'
    default:
      return String(error.code)
  }
}

function parseUrl(given: Given, example: string): string {
  const url = URL.parse(textOf(given, example))
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    throw new Unfit(`is no URL with http:// or https://, write for example ${example}`)
  }
  if (url.username !== '' || url.password !== '') throw new Unfit('holds a user or password: those belong under auth')
  if (url.search !== '' || url.hash !== '') throw new Unfit(`ends in a query or fragment, write for example ${example}`)
  if (/\/v2\/?$/.test(url.pathname)) throw new Unfit(`ends in /v2, which is added for every request: leave it out`)
  return url.href.replace(/\/+$/, '')
}
