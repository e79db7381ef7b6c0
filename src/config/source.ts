/** One YAML file that knows where its keys stand. Knows YAML and nothing of what the keys mean; reads no file itself. */
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, type Document, type Node } from 'yaml'

export type KeyPath = readonly PropertyKey[]

/** A place in a configuration file; lines and columns count from 1. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

/** One thing wrong: where, under which key (dotted; empty for the file itself), and what to write instead. */
export interface Problem extends Place {
  readonly key: string
  readonly message: string
}

const MAX_KEY_LENGTH = 80
// Against a few lines of aliases that expand to gigabytes.
const MAX_ALIASES = 100

export class Source {
  readonly file: string
  /** What the file says, not yet checked; `{}` when it says nothing. */
  readonly raw: unknown
  /** What is wrong with the YAML itself. */
  readonly problems: readonly Problem[]
  /** The text is no YAML, so that `raw` says nothing about what was meant. */
  readonly isBroken: boolean
  readonly #text: string
  readonly #document: Document.Parsed
  readonly #lines = new LineCounter()

  /** Parses `text`. Never throws: broken YAML gives problems. `file` is the name to call it by. */
  constructor(file: string, text: string) {
    this.file = file
    this.#text = text
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false })
    const { errors } = this.#document
    const broken = errors.find(({ code }) => code !== 'DUPLICATE_KEY')
    this.isBroken = broken !== undefined
    // One slip makes the parser stumble over much of what follows: the first is the one to mend.
    const told = broken === undefined ? errors : [broken]
    const problems = told.map(({ pos, code, message }) => this.#yamlProblem(pos[0], code, message))
    this.raw = this.isBroken ? {} : this.#toValue(problems)
    this.problems = problems
  }

  /** Where the key at `path` stands, or the nearest one above it that is written. */
  placeOf(path: KeyPath): Place {
    return this.#placeAt(this.#find(path).offset)
  }

  /** A problem with the key at `path`. */
  problemAt(path: KeyPath, message: string): Problem {
    const { offset, key } = this.#find(path)
    return { ...this.#placeAt(offset), key, message }
  }

  #toValue(problems: Problem[]): unknown {
    try {
      return this.#document.toJS({ maxAliasCount: MAX_ALIASES }) ?? {}
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      problems.push({ ...this.#placeAt(0), key: '', message: `cannot be read: ${message}` })
      return {}
    }
  }

  #yamlProblem(offset: number, code: string, message: string): Problem {
    if (code !== 'DUPLICATE_KEY') return { ...this.#placeAt(offset), key: '', message: `no YAML: ${message}` }
    // The parser points at the second key, or behind the first one when that has no value.
    const before = this.#text.slice(Math.max(0, offset - MAX_KEY_LENGTH), offset)
    const isAtKey = /^["'\w]/.test(this.#text.slice(offset, offset + 1))
    const start = isAtKey ? offset : offset - (/["'\w.-]+[ \t]*:?[ \t]*$/.exec(before)?.[0].length ?? 0)
    const key = /^["']?([\w.-]+)/.exec(this.#text.slice(start, start + MAX_KEY_LENGTH))?.[1] ?? ''
    return { ...this.#placeAt(start), key, message: 'is given twice: keep one' }
  }

  /**
   * Walks down as far as the file goes. A list that is written as its only entry has no index, and an endpoint that is
   * written as its URL no `url`: such parts are passed over. A missing key stays in the dotted name.
   */
  #find(path: KeyPath): { readonly offset: number; readonly key: string } {
    let node = this.#nodeOf(this.#document.contents)
    let offset = node?.range?.[0] ?? 0
    let key = ''
    for (const part of path) {
      // Below a key that is missing as a whole there is nothing to name.
      if (typeof part === 'number' && node === undefined && key !== '') break
      if (isScalar(node) || (typeof part === 'number' && !isSeq(node))) continue
      if (isSeq(node) && typeof part === 'number') {
        node = this.#nodeOf(node.items[part])
        offset = node?.range?.[0] ?? offset
        key += `[${part}]`
      } else {
        const pair = isMap(node)
          ? node.items.findLast((each) => isScalar(each.key) && each.key.value === part)
          : undefined
        if (isScalar(pair?.key)) offset = pair.key.range?.[0] ?? offset
        node = this.#nodeOf(pair?.value)
        key += key === '' ? String(part) : `.${String(part)}`
      }
    }
    return { offset, key }
  }

  #nodeOf(value: unknown): Node | undefined {
    if (isAlias(value)) return value.resolve(this.#document)
    return isNode(value) ? value : undefined
  }

  #placeAt(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset)
    return { file: this.file, line: Math.max(1, line), column: Math.max(1, col) }
  }
}

/** What stands for a file where there is none. */
export const NO_FILE = '(no entrepot.yaml)'

/** `file:line:column`, the form editors and terminals jump to. */
export function formatPlace({ file, line, column }: Place): string {
  if (file === NO_FILE) return file
  return `${file}:${line}:${column}`
}

/** Problems in the order in which somebody would mend them: file by file, from the top. */
export function sortProblems(problems: readonly Problem[]): Problem[] {
  return problems.toSorted(
    (a, b) => (a.file < b.file ? -1 : Number(a.file > b.file)) || a.line - b.line || a.column - b.column,
  )
}
