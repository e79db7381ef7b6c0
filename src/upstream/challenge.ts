/** What a 401 asks for. Pure; knows the grammar of WWW-Authenticate and nothing of trust or tokens. */

export type Scheme = 'basic' | 'bearer'

export interface Challenge {
  readonly scheme: Scheme
  /** Parameters by lower-case name; the first of a repeated name counts. */
  readonly params: ReadonlyMap<string, string>
}

// One header of an honest registry is a few hundred bytes.
const MAX_CHALLENGE_LENGTH = 16_384
const MAX_CHALLENGES = 16
const TOKEN68_END = /^[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/

/**
 * Parses every challenge of a 401, in order; skips schemes we do not speak. Never throws: garbage gives [].
 * A comma inside quotes belongs to the value (`scope="repository:a:pull,push"`). Rule: RFC 9110 section 11.6.1.
 */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  const found: Challenge[] = []
  for (const header of headers) {
    if (header.length > MAX_CHALLENGE_LENGTH) continue
    for (const { scheme, params } of new ChallengeReader(header).readAll()) {
      if ((scheme === 'basic' || scheme === 'bearer') && found.length < MAX_CHALLENGES) found.push({ scheme, params })
    }
  }
  return found
}

interface RawChallenge {
  readonly scheme: string
  readonly params: Map<string, string>
}

/**
 * Reads one header. A word followed by `=` is a parameter of the current challenge, any other word starts the next one:
 * that is how a comma between parameters and one between challenges are told apart.
 */
class ChallengeReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  readAll(): RawChallenge[] {
    const found: RawChallenge[] = []
    for (let current: RawChallenge | undefined; ;) {
      this.#skip(/^[\s,]+/)
      const word = this.#take(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+/)
      if (word === undefined) return found
      const value = this.#readValue()
      if (value === undefined) {
        current = { scheme: word.toLowerCase(), params: new Map() }
        found.push(current)
        this.#skipToken68()
      } else if (current !== undefined && !current.params.has(word.toLowerCase())) {
        current.params.set(word.toLowerCase(), value)
      }
    }
  }

  /** The value behind `=`, quoted or not; undefined when the word before stands alone. */
  #readValue(): string | undefined {
    if (this.#take(/^\s*=\s*/) === undefined) return undefined
    if (this.#text[this.#at] !== '"') return this.#take(/^[^\s,"]*/) ?? ''
    // An unclosed quote takes the rest: a cut header must not turn into other parameters.
    const quoted = this.#take(/^"(?:[^"\\]|\\[\s\S])*(?:"|\\?$)/) ?? ''
    return quoted.replace(/^"|"$/g, '').replaceAll(/\\([\s\S])/g, '$1')
  }

  /** `Negotiate YII=` carries one bare token instead of parameters. */
  #skipToken68(): void {
    if (this.#take(/^[ \t]+/) !== undefined) this.#skip(TOKEN68_END)
  }

  #take(pattern: RegExp): string | undefined {
    const match = pattern.exec(this.#text.slice(this.#at))
    if (match === null) return undefined
    this.#at += match[0].length
    return match[0]
  }

  #skip(pattern: RegExp): void {
    this.#take(pattern)
  }
}
