/** Which images never go: patterns of the configuration, and those an operator added, which lie in the folder. */
import { GatewayError } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Store } from '../store/store.ts'

/** Tells whether any of some globs matches; `*` stops at `/`. */
export type GlobMatcher = (globs: readonly string[]) => (text: string) => boolean

export interface PinnedImage {
  readonly repository: Repository
  readonly digest: Digest
  readonly tags: readonly Tag[]
}

const MAX_PINS = 10_000
const PATTERN = /^[^\s\p{Cc}]{1,512}$/u

/** A pin as written: `repository:tag`, `repository@digest`, or `repository` for all of it; globs in each. */
export function isPinPattern(text: string): boolean {
  return PATTERN.test(text)
}

export class Pins {
  readonly #store: Pick<Store, 'readPins' | 'writePins'>
  readonly #configured: readonly string[]
  readonly #matcher: GlobMatcher
  #writing: Promise<unknown> = Promise.resolve()

  constructor(store: Pick<Store, 'readPins' | 'writePins'>, configured: readonly string[], matcher: GlobMatcher) {
    this.#store = store
    this.#configured = configured
    this.#matcher = matcher
  }

  /** Those of the configuration, and those of the folder. Rejects when the folder's cannot be read. */
  async list(): Promise<{ readonly configured: readonly string[]; readonly added: readonly string[] }> {
    return { configured: this.#configured, added: await this.#store.readPins() }
  }

  /** A test for images, by the pins as they are now. Rejects when they cannot be read: then nothing may go. */
  async matcher(): Promise<(image: PinnedImage) => boolean> {
    const pins = [...this.#configured, ...(await this.#store.readPins())].map((pin) => this.#compile(pin))
    return (image) => pins.some((isPinned) => isPinned(image))
  }

  /** Adds a pin to the folder's; false when it was there. */
  add(pin: string): Promise<boolean> {
    return this.#change(async (pins) => {
      if (pins.includes(pin)) return false
      if (pins.length >= MAX_PINS) {
        throw new GatewayError('BAD_REQUEST', `pin ${pin}: there are ${MAX_PINS} pins; use patterns`)
      }
      await this.#store.writePins([...pins, pin])
      return true
    })
  }

  /** Removes a pin from the folder's; false when it was not there. */
  remove(pin: string): Promise<boolean> {
    return this.#change(async (pins) => {
      if (!pins.includes(pin)) return false
      await this.#store.writePins(pins.filter((each) => each !== pin))
      return true
    })
  }

  /** Repository and reference match apart: a `**` in front of a tag would be no path of its own, and match as `*`. */
  #compile(pin: string): (image: PinnedImage) => boolean {
    const at = pin.indexOf('@')
    const colon = pin.lastIndexOf(':')
    const end = at === -1 ? (colon > pin.lastIndexOf('/') ? colon : pin.length) : at
    const isRepository = this.#matcher([pin.slice(0, end)])
    if (end === pin.length) return ({ repository }) => isRepository(repository)
    const isReference = this.#matcher([pin.slice(end + 1)])
    return ({ repository, digest, tags }) =>
      isRepository(repository) && (at === -1 ? tags.some((tag) => isReference(tag)) : isReference(digest))
  }

  /** One change at a time: each reads what the one before it wrote. */
  #change(change: (pins: readonly string[]) => Promise<boolean>): Promise<boolean> {
    const done = this.#writing.then(async () => change(await this.#store.readPins()))
    this.#writing = done.catch(() => undefined)
    return done
  }
}
