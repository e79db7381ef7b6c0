/** The tables of all keys in docs/configuration.md, written from the JSON Schemas. Pure. */
import type { JsonSchema } from './json-schema.ts'

export interface KeyRow {
  /** Dotted, `[]` after a list: `listen[].address`. */
  readonly key: string
  /** As a user would write it; undefined when there is none. */
  readonly preset: string | undefined
  readonly description: string
}

/** One row for each key below `schema` that holds a value or a section, parents first. */
export function keyRows(schema: JsonSchema, prefix = ''): KeyRow[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, node]) => {
    const key = `${prefix}${name}`
    const { inner, isList } = innerSection(node)
    const preset = inner === undefined || node.type !== 'object' ? writePreset(node.default) : undefined
    const row = { key, preset, description: node.description ?? '' }
    return inner === undefined ? [row] : [row, ...keyRows(inner, `${key}${isList ? '[]' : ''}.`)]
  })
}

/** Replaces what stands between `<!-- keys: NAME -->` and `<!-- end -->` by the table of that schema. */
export function fillTables(markdown: string, schemas: Readonly<Record<string, JsonSchema>>): string {
  return markdown.replace(
    /(<!-- keys: (\w+) -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start: string, name: string, end: string) => {
      const schema = schemas[name]
      if (schema === undefined) throw new Error(`docs/configuration.md: no schema is called ${name}`)
      return `${start}${writeTable(keyRows(schema))}${end}`
    },
  )
}

function writeTable(rows: readonly KeyRow[]): string {
  const lines = rows.map(({ key, preset, description }) => {
    return `| \`${key}\` | ${preset === undefined ? '' : `\`${preset}\``} | ${description.replaceAll('|', '\\|')} |`
  })
  return ['| key | default | meaning |', '| --- | --- | --- |', ...lines, ''].join('\n')
}

/** The section at or in a node: a section itself, the entries of a list, or the longer of two ways of writing. */
function innerSection(node: JsonSchema): { readonly inner: JsonSchema | undefined; readonly isList: boolean } {
  if (node.properties !== undefined) return { inner: node, isList: false }
  if (node.items !== undefined) return { inner: innerSection(node.items).inner, isList: true }
  for (const alternative of node.anyOf?.toReversed() ?? []) {
    const found = innerSection(alternative)
    if (found.inner !== undefined) return found
  }
  return { inner: undefined, isList: false }
}

function writePreset(preset: unknown): string | undefined {
  if (preset === undefined || typeof preset === 'string') return preset
  return JSON.stringify(preset).replaceAll('"', "'").replaceAll("','", "', '")
}
