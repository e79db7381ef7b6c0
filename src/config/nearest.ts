/** The known word somebody probably meant. Pure. */

/**
 * The word of `known` that is nearest to `text` by edits (insert, delete, replace, swap of neighbours; case counts
 * nothing), or undefined when even that one differs in more than a third of its letters: a far guess misleads.
 */
export function nearestWord(text: string, known: readonly string[]): string | undefined {
  let best: { readonly word: string; readonly edits: number } | undefined
  for (const word of known) {
    const edits = countEdits(text.toLowerCase(), word.toLowerCase())
    if (edits <= Math.max(1, Math.floor(Math.max(word.length, text.length) / 3)) && edits < (best?.edits ?? Infinity)) {
      best = { word, edits }
    }
  }
  return best?.word
}

/** Damerau-Levenshtein distance in its restricted form (optimal string alignment); the last two rows are enough. */
function countEdits(from: string, to: string): number {
  if (from.length > 64 || to.length > 64) return Infinity // no key of ours is that long; keeps the cost bounded
  let before: number[] = []
  let above = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let row = 1; row <= from.length; row++) {
    const current = [row]
    for (let column = 1; column <= to.length; column++) {
      const replaced = at(above, column - 1) + (from[row - 1] === to[column - 1] ? 0 : 1)
      const isSwap = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      const swapped = isSwap ? at(before, column - 2) + 1 : Infinity
      current.push(Math.min(at(above, column) + 1, at(current, column - 1) + 1, replaced, swapped))
    }
    before = above
    above = current
  }
  return at(above, to.length)
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Infinity
}
