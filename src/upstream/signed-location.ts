/** Where a redirect led, for further ranges of the same fill. A secret: it never leaves the session it was put in. */
import type { Digest } from '../oci/digest.ts'
import { usableUntil } from './redirect.ts'
import type { BlobSession } from './upstream.ts'

interface Place {
  readonly digest: Digest
  /** Undefined: the registry itself serves the bytes. */
  readonly url: URL | undefined
  readonly until: number
  /** Length of the whole, as first announced. */
  readonly size: number | undefined
}

/** What one fill knows of its source; the only reader and writer of `BlobSession.location`. */
export class SignedLocation {
  readonly #place: Place

  private constructor(place: Place) {
    this.#place = place
  }

  /** What `session` holds about `digest`; a session used for another blob holds nothing about this one. */
  static of(session: BlobSession, digest: Digest): SignedLocation | undefined {
    const { location } = session
    return location instanceof SignedLocation && location.#place.digest === digest ? location : undefined
  }

  static remember(session: BlobSession, place: Omit<Place, 'until'>, now: number): void {
    const until = place.url === undefined ? 0 : usableUntil(place.url, now)
    session.location = new SignedLocation({ ...place, until })
  }

  /** Forgets the address, not the length. */
  static forget(session: BlobSession, digest: Digest): void {
    const held = SignedLocation.of(session, digest)
    if (held !== undefined) session.location = new SignedLocation({ ...held.#place, url: undefined })
  }

  get size(): number | undefined {
    return this.#place.size
  }

  urlAt(now: number): URL | undefined {
    return now < this.#place.until ? this.#place.url : undefined
  }

  /** Keeps it out of any log that prints a session. */
  toJSON(): string {
    return '[signed location]'
  }
}
