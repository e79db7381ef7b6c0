/** A bound on a whole piece of work, whose timer does not outlive it. */

/**
 * Runs `work` under `signal` and a deadline of `ms`. When the deadline ends it, `onLate` says what is thrown; otherwise
 * the work's own result or failure comes through.
 */
export async function withDeadline<T>(
  { ms, signal, onLate }: { readonly ms: number; readonly signal: AbortSignal; readonly onLate: () => Error },
  work: (bounded: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(new DOMException('the deadline has passed', 'TimeoutError')), ms)
  try {
    return await work(AbortSignal.any([signal, late.signal]))
  } catch (error) {
    throw late.signal.aborted && !signal.aborted ? onLate() : error
  } finally {
    clearTimeout(timer)
  }
}
