/** Globs of repositories and tags: `*` stops at `/`, `**` does not. Pure. */
import picomatch from 'picomatch'

// Only stars, question marks and character classes: by default `!x` negates a whole list and `{a,b}` expands.
const GLOB = { dot: true, nonegate: true, nobrace: true, noextglob: true } as const

/** Tells whether any of the globs matches; no globs match nothing. `org/**` matches `org` itself too. */
export function globMatcher(globs: readonly string[]): (text: string) => boolean {
  if (globs.length === 0) return () => false
  if (globs.includes('**')) return () => true
  return picomatch([...globs], GLOB)
}
