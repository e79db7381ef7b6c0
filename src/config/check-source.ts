/** A file's value against its schema: what it means, and every problem at its place. */
import type { z } from 'zod'
import { knownKeys, type JsonSchema } from './json-schema.ts'
import { nearestWord } from './nearest.ts'
import type { Problem, Source } from './source.ts'

export interface Checked<T> {
  /** What the file means; with problems, what remains when the keys at fault are left out, and then only for further checks. */
  readonly value: T | undefined
  readonly problems: readonly Problem[]
}

/** Checks `source`. `describe` gives the JSON Schema of `schema`; called only when an unknown key needs a suggestion. */
export function checkSource<T>(source: Source, schema: z.ZodType<T>, describe: () => JsonSchema): Checked<T> {
  if (source.isBroken) return { value: undefined, problems: source.problems }
  const first = schema.safeParse(source.raw)
  if (first.success) return { value: first.data, problems: source.problems }
  const problems = first.error.issues.flatMap((issue) => problemsOf(issue, source, describe))
  return { value: parseWithout(source.raw, first.error.issues, schema), problems: [...source.problems, ...problems] }
}

function problemsOf(issue: z.core.$ZodIssue, source: Source, describe: () => JsonSchema): Problem[] {
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = knownKeys(describe(), issue.path)
      return issue.keys.map((key) => source.problemAt([...issue.path, key], unknownKey(key, known)))
    }
    case 'invalid_type':
      return [
        source.problemAt(
          issue.path,
          issue.path.length === 0 ? 'must hold keys and values' : wrongShape(issue, describe),
        ),
      ]
    case 'too_small':
      return [source.problemAt(issue.path, 'is an empty list: name at least one, or remove the line')]
    default:
      return [source.problemAt(issue.path, issue.message)]
  }
}

function unknownKey(key: string, known: readonly string[]): string {
  const nearest = nearestWord(key, known)
  return nearest === undefined
    ? `is no known key here; known are ${known.join(', ')}`
    : `is no known key; did you mean ${nearest}?`
}

function wrongShape({ expected, path }: z.core.$ZodIssueInvalidType, describe: () => JsonSchema): string {
  if (expected === 'array') return 'must be a list, for example [a, b]'
  const [first, ...more] = expected === 'object' ? knownKeys(describe(), path) : []
  if (first !== undefined) {
    const others = more.length === 0 ? '' : `; it may also hold ${more.join(', ')}`
    return `must be a section with keys of its own, written ${String(path.find((part) => typeof part === 'string'))}: { ${first}: … }${others}`
  }
  if (expected === 'object') return 'must be a section with keys of its own'
  return `must be ${expected}`
}

/** So that one wrong key does not hide what other checks would say: the value without the top-level keys at fault. */
function parseWithout<T>(raw: unknown, issues: readonly z.core.$ZodIssue[], schema: z.ZodType<T>): T | undefined {
  if (typeof raw !== 'object' || raw === null) return undefined
  const faulty = new Set(issues.flatMap((issue) => faultyKeys(issue)))
  return schema.safeParse(Object.fromEntries(Object.entries(raw).filter(([key]) => !faulty.has(key)))).data
}

function faultyKeys(issue: z.core.$ZodIssue): string[] {
  const [top] = issue.path
  if (top !== undefined) return [String(top)]
  return issue.code === 'unrecognized_keys' ? issue.keys : []
}
