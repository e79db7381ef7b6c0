/** What a handler gives back: a value. `writer.ts` alone puts it on a socket. */
import type { ByteSource } from '../async/byte-source.ts'

/** A part of a reply's body: bytes as they are, or bytes `[from, to)` of the source. */
export type Segment = Uint8Array | { readonly from: number; readonly to: number }

/** Bytes read from a source; the writer closes it. One segment for a whole or single range, more for multipart. */
export interface SourceBody {
  readonly source: ByteSource
  readonly segments: readonly Segment[]
}

export type Body = Uint8Array | SourceBody | undefined

export interface Reply {
  readonly status: number
  /** Lower-case names; `content-length` is always set. On HEAD the body is not sent and the headers stay. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Body
  /** For Cache-Status, log and metrics. */
  readonly outcome?: Outcome
}

/** What the cache did for a request. */
export type Outcome = 'hit' | 'miss' | 'stale' | 'revalidated' | 'joined' | 'negative' | 'bypass'
