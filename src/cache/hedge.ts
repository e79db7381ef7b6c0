/** A second try beside a first one that takes long: whichever answers first is used, the other is given up. */
import { delay } from '../async/abort.ts'
import type { BlobStream } from '../upstream/upstream.ts'

export interface HedgeOptions {
  /** How long the first try is alone, in ms. */
  readonly afterMs: number
  /** Ends both. */
  readonly signal: AbortSignal
}

/**
 * Opens a stream; when nothing has answered after `afterMs`, opens another and takes the first of the two. Rejects with
 * the first failure when that comes alone, else when both have failed. The stream that comes too late is cancelled.
 */
export async function openHedged(
  open: (signal: AbortSignal) => Promise<BlobStream>,
  { afterMs, signal }: HedgeOptions,
): Promise<BlobStream> {
  const stops: AbortController[] = []
  const start = async (): Promise<{ readonly stream: BlobStream; readonly stop: AbortController }> => {
    const stop = new AbortController()
    stops.push(stop)
    const stream = await open(AbortSignal.any([signal, stop.signal]))
    stop.signal.addEventListener('abort', () => stream.cancel(), { once: true })
    return { stream, stop }
  }
  const answered = new AbortController()
  const first = start()
  const second = delay(afterMs, answered.signal).then(start)
  try {
    // Before the second has begun a failure of the first is the answer; after that both must fail.
    const winner = await Promise.race([
      first.catch((error: unknown) => (stops.length > 1 ? second : Promise.reject(error as Error))),
      second.catch(() => first),
    ])
    for (const stop of stops)
      if (stop !== winner.stop) stop.abort(new DOMException('another try answered first', 'AbortError'))
    return winner.stream
  } finally {
    answered.abort(new DOMException('answered', 'AbortError'))
  }
}
