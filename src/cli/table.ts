/** Tables for people: padded columns that fit the terminal. Pure; text from outside is made safe to print. */
import { stripVTControlCharacters } from 'node:util'

export interface TableOptions {
  /** Columns of the terminal; Infinity where the output is no terminal. */
  readonly width: number
  /** Put before every line. Default: nothing. */
  readonly indent?: string
  /** Dresses a cell after it was padded, by its text without padding; row -1 is the header. Default: as it is. */
  readonly paint?: (
    padded: string,
    cell: { readonly row: number; readonly column: number; readonly text: string },
  ) => string
}

const GAP = '  '
/** A column is never squeezed below this: what is left would tell nothing. */
const MIN_COLUMN = 8

/** One line a row, the header first, no line end after the last. Too wide for the terminal, the widest columns but the first are cut with `…`. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  options: TableOptions,
): string {
  const { indent = '', paint = (padded: string): string => padded } = options
  const cells = [header, ...rows].map((row) => row.map(printable))
  const natural = header.map((_, column) => Math.max(...cells.map((row) => displayWidth(row[column] ?? ''))))
  const widths = fitWidths(natural, options.width - indent.length - GAP.length * (header.length - 1))
  const lines = cells.map((row, index) => {
    const padded = widths.map((width, column) => {
      const text = row[column] ?? ''
      return paint(pad(cut(text, width), width), { row: index - 1, column, text })
    })
    return `${indent}${padded.join(GAP)}`
  })
  return lines.map(trimLineEnd).join('\n')
}

/** Text from outside on one line: no control or escape characters, no marks that turn the reading direction. */
export function printable(text: string): string {
  return stripVTControlCharacters(text)
    .replace(/[\p{Cc}\u2028\u2029]+/gu, ' ')
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '')
}

/** Columns `text` takes on a terminal: a letter of East Asian scripts and an emoji take two. */
export function displayWidth(text: string): number {
  let width = 0
  for (const { segment } of new Intl.Segmenter().segment(text)) width += WIDE.test(segment) ? 2 : 1
  return width
}

const WIDE =
  /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\uff01-\uff60]/u

/** Takes from the widest column first, so that short ones stay whole; never from the first, which names the row. */
function fitWidths(natural: readonly number[], room: number): number[] {
  const widths = [...natural]
  let excess = widths.reduce((sum, width) => sum + width, 0) - room
  while (excess > 0) {
    const widest = widths.indexOf(Math.max(...widths.slice(1)), 1)
    const width = widths[widest] ?? 0
    if (width <= MIN_COLUMN) break
    widths[widest] = width - 1
    excess--
  }
  return widths
}

function cut(text: string, width: number): string {
  if (displayWidth(text) <= width) return text
  let kept = ''
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (displayWidth(kept + segment) > width - 1) break
    kept += segment
  }
  return `${kept}…`
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - displayWidth(text)))
}

/** Padding at the end of a line would wrap on a narrow terminal; it may stand before a closing colour. */
function trimLineEnd(line: string): string {
  // eslint-disable-next-line no-control-regex -- the escape that ends a colour is what is looked for
  return line.replace(/ +((?:\u001b\[[0-9;]*m)*)$/, '$1')
}
