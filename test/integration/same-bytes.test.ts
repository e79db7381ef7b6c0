/** What a client gets through the gateway is what the upstream gives: bytes, type, digest, length, for 200 images. */
import assert from 'node:assert/strict'
import { Agent } from 'node:http'
import { test } from 'node:test'
import { ask, type Answer } from '../support/client.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { generateImages } from '../support/tiny-image.ts'

const COMPARED = ['content-type', 'content-length', 'docker-content-digest', 'accept-ranges'] as const
const SEED = process.env['SEED'] ?? '1'

test('every manifest and blob of 200 images, cold and warm, GET and HEAD, equals the upstream’s own', async (t) => {
  await using registry = await startScriptedRegistry()
  const images = generateImages({ seed: SEED, count: 200 })
  registry.load(...images)
  await using gateway = await startTestGateway({
    upstreams: { generated: `url: ${registry.url}\nfill: { complete: never }` },
    default: 'generated',
  })
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  let compared = 0
  const compare = async (path: string): Promise<void> => {
    const expected = await ask(`${registry.url}${path}`, { agent })
    for (const round of ['cold', 'warm'] as const) {
      for (const method of ['HEAD', 'GET'] as const) {
        const answer = await ask(`${gateway.url}${path}`, { method, agent })
        assertSame(answer, expected, `${round} ${method} ${path}`, method)
        compared++
      }
    }
  }
  const compareImage = async (image: (typeof images)[number]): Promise<void> => {
    const base = `/v2/${image.repository}`
    const paths = [
      `${base}/manifests/${image.tag}`,
      ...image.manifests.map(({ digest }) => `${base}/manifests/${digest}`),
      ...image.blobs.map(({ digest }) => `${base}/blobs/${digest}`),
    ]
    await Promise.all(paths.map(compare))
  }
  const left = images.values()
  // Several at once: one of many parts keeps the others from waiting for its last.
  const work = async (): Promise<void> => {
    for (const image of left) await compareImage(image)
  }
  await Promise.all([work(), work(), work(), work()])
  agent.destroy()
  t.diagnostic(`seed ${SEED}: ${images.length} images, ${compared} answers compared`)
})

function assertSame(answer: Answer, expected: Answer, what: string, method: string): void {
  assert.equal(answer.status, expected.status, what)
  for (const name of COMPARED) {
    // An upstream need not say that it takes ranges; we do.
    if (name === 'accept-ranges' && expected.headers[name] === undefined) continue
    assert.equal(answer.headers[name], expected.headers[name], `${what}: ${name}`)
  }
  if (method === 'GET') assert.ok(answer.body.equals(expected.body), `${what}: body`)
}
