import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { EVENTS } from '../../../src/telemetry/events.ts'

const SOURCES = join(import.meta.dirname, '../../../src')

test('every event of the table is told somewhere', () => {
  const files = globSync('**/*.ts', { cwd: SOURCES }).filter((file) => !file.endsWith('events.ts'))
  const text = files.map((file) => readFileSync(join(SOURCES, file), 'utf8')).join('\n')
  assert.deepEqual(
    Object.keys(EVENTS).filter((name) => !text.includes(`'${name}'`)),
    [],
  )
})
