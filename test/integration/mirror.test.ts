/** A mirror that nobody vouches for: its bytes are welcome, its lies cost one pull. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask } from '../support/client.ts'
import { fault } from '../support/fault-script.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { bytesOf, seededBlob } from '../support/tiny-image.ts'

test('a mirror that sent wrong bytes is asked last from then on, and the next pull is right', async () => {
  const blob = seededBlob('mirror', 700_000)
  const other = seededBlob('other', 700_000)
  await using mirror = await startScriptedRegistry()
  await using registry = await startScriptedRegistry()
  for (const each of [mirror, registry]) each.repository('acme/app').add(blob, other)
  mirror.scriptAlways({ kind: 'blob' }, fault.corrupt(100_000))
  const url = `[{ url: ${mirror.url}, capabilities: [pull] }, ${registry.url}]`
  await using gateway = await startTestGateway({ upstreams: { origin: `url: ${url}` }, default: 'origin' })
  const pull = (digest: string): ReturnType<typeof ask> => ask(`${gateway.url}/v2/acme/app/blobs/${digest}`)
  const first = await pull(blob.digest)
  assert.equal(first.isComplete, false)
  const second = await pull(blob.digest)
  assert.ok(second.isComplete && second.body.equals(bytesOf(blob.content)))
  assert.ok((await pull(other.digest)).body.equals(bytesOf(other.content)))
  assert.deepEqual([mirror.count({ kind: 'blob' }), registry.count({ kind: 'blob' })], [1, 2])
})
