/** Turns errors of the file system into ours, and tells absence from failure. */
import { GatewayError } from '../../errors.ts'

/** The `code` of a system error, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/**
 * Whether the file is simply not there for us. `ENOTDIR`: a file stands where a folder should. `ELOOP`: a symbolic link
 * stands where our file should; it is never followed.
 */
export function isAbsence(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ELOOP'
}

/** `STORE_FULL` when space or quota ran out, else `STORE_FAILED`; an error of ours passes unchanged. */
export function storeError(tried: string, path: string, cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  const errno = errnoOf(cause)
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new GatewayError(
      'STORE_FULL',
      `${tried} ${path}: no space left (${errno}); free some, or lower keep.quota`,
      {
        cause,
      },
    )
  }
  const what = errno ?? (cause instanceof Error ? cause.message : String(cause))
  return new GatewayError('STORE_FAILED', `${tried} ${path}: ${what}`, { cause })
}

/** Awaits `work`; absence gives undefined, any other failure a {@link storeError}. */
export async function orAbsent<T>(tried: string, path: string, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw storeError(tried, path, error)
  }
}
