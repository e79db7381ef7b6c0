/**
 * Writes what is generated from the schemas: the JSON Schema files beside this one, and the key tables of
 * docs/configuration.md. Run as `node src/config/write-schemas.ts`; a test fails while they are not up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fillTables } from './key-tables.ts'
import { gatewayJsonSchema, upstreamJsonSchema } from './json-schema.ts'

/** Every generated file with its content as it should be; `root` is the project's folder. */
export function generatedFiles(root: string): { readonly path: string; readonly content: string }[] {
  const schemas = { gateway: gatewayJsonSchema(), upstream: upstreamJsonSchema() }
  const documentation = join(root, 'docs/configuration.md')
  return [
    { path: join(root, 'src/config/entrepot.schema.json'), content: `${JSON.stringify(schemas.gateway, null, 2)}\n` },
    { path: join(root, 'src/config/upstream.schema.json'), content: `${JSON.stringify(schemas.upstream, null, 2)}\n` },
    { path: documentation, content: fillTables(readFileSync(documentation, 'utf8'), schemas) },
  ]
}

if (import.meta.main) {
  for (const { path, content } of generatedFiles(join(import.meta.dirname, '../..'))) writeFileSync(path, content)
}
