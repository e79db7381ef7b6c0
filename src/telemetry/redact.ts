/** Keeping secrets out of what is said: texts without any value we know to be secret. */

/** Put where a secret was. */
export const REDACTED = '[redacted]'

/** Shorter values would blank ordinary words and hide little. */
const MIN_LENGTH = 4
/** Tokens live minutes; one a repository and scope, so this many are more than are valid at a time. */
const MAX_TOKENS = 5_000
/** Longer texts are cut before they are scrubbed. */
const MAX_TEXT_LENGTH = 16_384

/** The values that must never be shown. One set a process, told of every secret as soon as it is known. */
export class SecretSet {
  /** By their first characters, so that one pass over a text finds them whatever their number. */
  readonly #byStart = new Map<string, Map<string, number>>()
  readonly #tokens = new Set<string>()

  /** Registers a configured secret for good, also as it looks percent-encoded and in base64. */
  add(secret: string): void {
    for (const form of formsOf(secret)) this.#insert(form)
  }

  /**
   * Registers a secret that was issued to us, or read while we run, in the same forms. The oldest that was not seen again
   * is forgotten beyond 5,000: by then it has expired.
   */
  addToken(token: string): void {
    if (token.length < MIN_LENGTH) return
    if (this.#tokens.delete(token)) {
      this.#tokens.add(token)
      return
    }
    this.#tokens.add(token)
    for (const form of formsOf(token)) this.#insert(form)
    for (const oldest of this.#tokens) {
      if (this.#tokens.size <= MAX_TOKENS) break
      this.#tokens.delete(oldest)
      for (const form of formsOf(oldest)) this.#remove(form)
    }
  }

  /** `text` with every registered value replaced; cut at 16 KiB. */
  scrub(text: string): string {
    const cut = text.length > MAX_TEXT_LENGTH ? text.slice(0, MAX_TEXT_LENGTH) : text
    let scrubbed = ''
    let copied = 0
    for (let at = 0; at + MIN_LENGTH <= cut.length; at++) {
      const length = this.#lengthAt(cut, at)
      if (length === 0) continue
      scrubbed += cut.slice(copied, at) + REDACTED
      copied = at + length
      at = copied - 1
    }
    return copied === 0 ? cut : scrubbed + cut.slice(copied)
  }

  /** Length of the longest registered value that stands at `at`; 0 when there is none. */
  #lengthAt(text: string, at: number): number {
    const candidates = this.#byStart.get(text.slice(at, at + MIN_LENGTH))
    if (candidates === undefined) return 0
    let longest = 0
    for (const secret of candidates.keys()) {
      if (secret.length > longest && text.startsWith(secret, at)) longest = secret.length
      // A text that was cut inside a secret ends with its beginning.
      else if (
        at + secret.length > text.length &&
        text.length === MAX_TEXT_LENGTH &&
        secret.startsWith(text.slice(at))
      ) {
        longest = Math.max(longest, text.length - at)
      }
    }
    return longest
  }

  #insert(secret: string): void {
    if (secret.length < MIN_LENGTH) return
    const start = secret.slice(0, MIN_LENGTH)
    const group = this.#byStart.get(start) ?? new Map<string, number>()
    group.set(secret, (group.get(secret) ?? 0) + 1)
    this.#byStart.set(start, group)
  }

  /** Counted, because a token may equal a configured secret. */
  #remove(secret: string): void {
    const start = secret.slice(0, MIN_LENGTH)
    const group = this.#byStart.get(start)
    const count = group?.get(secret)
    if (group === undefined || count === undefined) return
    if (count > 1) group.set(secret, count - 1)
    else group.delete(secret)
    if (group.size === 0) this.#byStart.delete(start)
  }
}

function formsOf(secret: string): Set<string> {
  const encoded = Buffer.from(secret)
  const forms = [secret, encoded.toString('base64'), encoded.toString('base64url'), JSON.stringify(secret).slice(1, -1)]
  // A lone surrogate has no percent-encoding.
  if (secret.isWellFormed()) forms.push(encodeURIComponent(secret))
  return new Set(forms)
}
