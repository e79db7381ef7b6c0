/** Which credential belongs to which repository, and where it comes from. Knows nothing of challenges or tokens. */
import picomatch from 'picomatch'
import { abortable } from '../async/abort.ts'
import type { Clock } from '../async/clock.ts'
import { SingleFlight } from '../async/single-flight.ts'
import type { Repository } from '../oci/repository.ts'
import { askHelper, type Secret } from './helper.ts'

export type CredentialSource =
  /** Read when needed: a secret file that changes is taken over. Undefined: there is none now. */
  | { readonly read: () => Promise<Secret | undefined> }
  /** A program `docker-credential-<helper>`; `server` defaults to the host of the first endpoint. */
  | { readonly helper: string; readonly server?: string }

export interface CredentialRule {
  /** Globs of repositories (`acme/*`, `**`); none or empty: all. */
  readonly repositories?: readonly string[]
  readonly source: CredentialSource
}

export interface Credential extends Secret {
  /** Identity for cache keys: changes whenever the secret does, and says nothing about it. */
  readonly id: string
  /** The rule's place in the list: `auth[0]`. */
  readonly rule: string
  /** For messages: the rule and the user. */
  readonly label: string
  /** The password is an identity token, to be spent by POST (`<token>` as user name, Docker's convention). */
  readonly isIdentityToken: boolean
}

export interface CredentialBookOptions {
  readonly rules: readonly CredentialRule[]
  /** What helpers are asked for when their rule does not say. */
  readonly server: string
  readonly clock: Clock
  /** How long what a source said is believed. Default 30 s. */
  readonly cacheMs?: number
  /** Told of each secret a source gives, and of the form it has in Basic. */
  readonly onSecret?: ((secret: string) => void) | undefined
}

const GLOB_OPTIONS = { dot: true, nonegate: true, nobrace: true, noextglob: true } as const

interface Entry {
  readonly index: number
  readonly source: CredentialSource
  readonly matches: (repository: string) => boolean
  /** Length of the longest literal start, then of the whole pattern. */
  readonly weight: readonly [number, number]
}

interface Held {
  readonly secret: Secret | undefined
  readonly readAt: number
  readonly generation: number
}

/** One upstream's credentials: the most specific rule that matches a repository names the source. */
export class CredentialBook {
  readonly #options: CredentialBookOptions
  readonly #entries: readonly Entry[]
  readonly #held = new Map<number, Held>()
  readonly #reads = new SingleFlight<Secret | undefined>()

  constructor(options: CredentialBookOptions) {
    this.#options = options
    this.#entries = options.rules
      .flatMap(toEntries)
      .sort((a, b) => b.weight[0] - a.weight[0] || b.weight[1] - a.weight[1])
  }

  /** Undefined: no rule matches, or its source knows nothing. Rejects with `SourceFailed`. */
  async find(repository: Repository, signal: AbortSignal): Promise<Credential | undefined> {
    const entry = this.#entries.find(({ matches }) => matches(repository))
    if (entry === undefined) return undefined
    const { secret, generation } = await this.#load(entry, signal)
    if (secret === undefined) return undefined
    return {
      ...secret,
      id: `${entry.index}.${generation}`,
      rule: ruleOf(entry),
      label: `${ruleOf(entry)} ${secret.username}`,
      isIdentityToken: secret.username === '<token>',
    }
  }

  /** The rule that `find` would use now: undefined when none matches, or its source had nothing when last asked. */
  ruleFor(repository: Repository): string | undefined {
    const entry = this.#entries.find(({ matches }) => matches(repository))
    const held = entry && this.#held.get(entry.index)
    return entry === undefined || (held !== undefined && held.secret === undefined) ? undefined : ruleOf(entry)
  }

  /** Makes the next `find` ask the sources again: what they said was refused. */
  expire(): void {
    for (const [index, held] of this.#held) this.#held.set(index, { ...held, readAt: Number.NEGATIVE_INFINITY })
  }

  async #load(entry: Entry, signal: AbortSignal): Promise<Held> {
    const { clock, onSecret, cacheMs = 30_000 } = this.#options
    const held = this.#held.get(entry.index)
    if (held !== undefined && Math.abs(clock.now() - held.readAt) < cacheMs) return held
    const secret = await this.#reads.join(String(entry.index), signal, (shared) => this.#read(entry, shared))
    if (secret !== undefined) for (const form of [secret.password, basicValueOf(secret)]) onSecret?.(form)
    const before = this.#held.get(entry.index)
    const isSame = before?.secret?.username === secret?.username && before?.secret?.password === secret?.password
    const generation = before === undefined ? 0 : isSame ? before.generation : before.generation + 1
    const read = { secret, readAt: clock.now(), generation }
    this.#held.set(entry.index, read)
    return read
  }

  async #read(entry: Entry, signal: AbortSignal): Promise<Secret | undefined> {
    const { source } = entry
    try {
      if ('read' in source) return await abortable(source.read(), signal)
      return await askHelper({ helper: source.helper, server: source.server ?? this.#options.server, signal })
    } catch (error) {
      throw signal.aborted ? error : new SourceFailed(ruleOf(entry), error)
    }
  }
}

/** What follows `Basic ` (RFC 7617 section 2). */
export function basicValueOf({ username, password }: Secret): string {
  return Buffer.from(`${username}:${password}`, 'utf8').toString('base64')
}

/** The source of a credential gave an error instead of a secret or of nothing. */
export class SourceFailed extends Error {
  override readonly name = 'SourceFailed'
  readonly rule: string

  constructor(rule: string, cause: unknown) {
    super(cause instanceof Error ? cause.message : 'the source failed', { cause })
    this.rule = rule
  }
}

function ruleOf({ index }: Entry): string {
  return `auth[${index}]`
}

function toEntries({ repositories, source }: CredentialRule, index: number): Entry[] {
  const patterns = repositories === undefined || repositories.length === 0 ? ['**'] : repositories
  return patterns.map((pattern) => ({
    index,
    source,
    matches: picomatch(pattern, GLOB_OPTIONS),
    weight: [pattern.search(/[*?[]|$/), pattern.length],
  }))
}
