/** The JSON Schemas that editors read, and the keys they name; written from the same source as the checks. */
import { z } from 'zod'
import { gatewaySchema } from './gateway-schema.ts'
import { ENV_PATTERN, type Surroundings } from './leaf.ts'
import { ONE_OR_MANY, OR_URL } from './section.ts'
import { upstreamSchema } from './upstream-schema.ts'

/** The part of JSON Schema that our schemas use. */
export interface JsonSchema {
  readonly description?: string
  readonly default?: unknown
  readonly type?: string
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly enum?: readonly unknown[]
  readonly [keyword: string]: unknown
}

// Nothing is read when a schema is written, so what values would be read against does not matter.
const NOWHERE: Surroundings = { folder: '/', env: {}, warn: () => undefined }

/** The JSON Schema of entrepot.yaml (draft 7, which every editor knows). */
export function gatewayJsonSchema(): JsonSchema {
  return { title: 'entrepot.yaml', ...writeSchema(gatewaySchema(NOWHERE)) }
}

/** The JSON Schema of one upstream's file (draft 7, which every editor knows). */
export function upstreamJsonSchema(): JsonSchema {
  return { title: 'upstreams.d/NAME.yaml', ...writeSchema(upstreamSchema(NOWHERE)) }
}

/** The keys known at `path`, for a suggestion; list indexes are numbers. Empty where no section stands. */
export function knownKeys(schema: JsonSchema, path: readonly PropertyKey[]): string[] {
  let nodes: readonly JsonSchema[] = [schema]
  for (const part of path) {
    nodes = nodes.flatMap(alternatives).flatMap((node) => {
      const next = typeof part === 'number' ? node.items : node.properties?.[String(part)]
      return next === undefined ? [] : [next]
    })
  }
  return nodes.flatMap(alternatives).flatMap((node) => Object.keys(node.properties ?? {}))
}

function alternatives(node: JsonSchema): JsonSchema[] {
  return node.anyOf === undefined ? [node] : node.anyOf.flatMap(alternatives)
}

function writeSchema(schema: z.ZodType): JsonSchema {
  // `input`: what a user writes, before defaults and units.
  const written: unknown = z.toJSONSchema(schema, {
    io: 'input',
    target: 'draft-7',
    override: ({ jsonSchema }) => widen(jsonSchema),
  })
  return JSON.parse(JSON.stringify(written)) as JsonSchema // plain data; drops zod's own hidden members
}

/** Puts in the second way of writing that `section.ts` marks, in place. */
function widen(node: z.core.JSONSchema.BaseSchema): void {
  if (node[OR_URL] === true) {
    const { [OR_URL]: _, description, ...object } = node
    replace(node, {
      ...(description !== undefined && { description }),
      anyOf: [{ type: 'string', pattern: `^https?://|${ENV_PATTERN}` }, object],
    })
  }
  if (node[ONE_OR_MANY] === true) {
    const { [ONE_OR_MANY]: _, description, default: preset, ...list } = node
    const kept = { ...(description !== undefined && { description }), ...(preset !== undefined && { default: preset }) }
    replace(node, { ...kept, anyOf: [list.items, list] })
  }
}

function replace(node: z.core.JSONSchema.BaseSchema, content: Readonly<Record<string, unknown>>): void {
  for (const key of Object.keys(node)) delete node[key]
  Object.assign(node, content)
}
