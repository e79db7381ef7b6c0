// Run as a child: a scripted registry with one image behind tokens, which tells what it was asked.

import { fault } from '../support/fault-script.ts'
import { ScriptedRegistry } from '../support/scripted-registry.ts'
import { ScriptedTokenServer } from '../support/scripted-token-server.ts'
import { imageManifest, seededBlob } from '../support/tiny-image.ts'
import { answerParent } from './child.ts'

const LAYER = 'application/vnd.oci.image.layer.v1.tar'
const CONFIG = 'application/vnd.oci.image.config.v1+json'

export interface ServeQuestion {
  readonly kind: 'serve'
  readonly repository: string
  readonly tag: string
  readonly seed: string
  readonly layerBytes: readonly number[]
  /** Of one connection. */
  readonly bytesPerSecond: number
}

export type UpstreamQuestion = ServeQuestion | { readonly kind: 'report' }

export interface ServedBlob {
  readonly digest: string
  readonly size: number
}

export interface BlobTraffic extends ServedBlob {
  readonly gets: number
  readonly bytes: number
  /** Bytes sent more than once. */
  readonly overlap: number
  /** Epoch ms of the first byte of its first answer. */
  readonly firstByteAt: number
}

export interface UpstreamAnswer {
  readonly url: string
  readonly realmHost: string
  readonly manifest: ServedBlob
  readonly blobs: readonly BlobTraffic[]
  readonly manifestGets: number
  /** Body bytes of the tag's manifest and of all blobs that were sent. */
  readonly bytes: number
  readonly tokens: number
}

interface World {
  readonly registry: ScriptedRegistry
  readonly tokens: ScriptedTokenServer
  readonly manifest: ServedBlob
  readonly blobs: readonly ReturnType<typeof seededBlob>[]
}

async function serve(question: ServeQuestion): Promise<World> {
  const { repository, tag, seed, layerBytes, bytesPerSecond } = question
  const tokens = new ScriptedTokenServer({ anonymousPulls: ['**'] })
  await tokens.listen()
  const registry = new ScriptedRegistry({ auth: tokens.auth(), publicNeedsToken: true })
  await registry.listen()
  const config = seededBlob(`${seed} config`, 4096, { mediaType: CONFIG })
  const layers = layerBytes.map((bytes, index) => seededBlob(`${seed} ${index}`, bytes, { mediaType: LAYER }))
  const manifest = imageManifest(config, layers)
  const held = registry.repository(repository)
  held.isPrivate = false
  held.add(config, ...layers).tag(tag, manifest)
  registry.scriptAlways({ kind: 'blob' }, fault.rate(bytesPerSecond))
  return {
    registry,
    tokens,
    manifest: { digest: manifest.digest, size: manifest.bytes.length },
    blobs: [config, ...layers],
  }
}

function report({ registry, tokens, manifest, blobs }: World): UpstreamAnswer {
  const traffic = blobs.map(({ digest, content }) => {
    const transfers = registry.transfers(digest)
    return {
      digest,
      size: content.size,
      gets: transfers.length,
      bytes: registry.trafficOf(digest),
      overlap: registry.overlap(digest),
      firstByteAt: Math.min(...transfers.map(({ firstByteAt }) => firstByteAt ?? Infinity)),
    }
  })
  const manifestGets = registry.matching({ method: 'GET', kind: 'manifest', status: 200 })
  const manifestBytes = manifestGets.reduce((sum, { bytesSent }) => sum + bytesSent, 0)
  return {
    url: registry.url,
    realmHost: tokens.host,
    manifest,
    blobs: traffic,
    manifestGets: manifestGets.length,
    bytes: manifestBytes + traffic.reduce((sum, { bytes }) => sum + bytes, 0),
    tokens: tokens.count({ kind: 'token', status: 200 }),
  }
}

let world: World | undefined

answerParent<UpstreamQuestion, UpstreamAnswer>(async (question) => {
  if (question.kind === 'serve') world = await serve(question)
  if (world === undefined) throw new Error('asked for a report before it served anything')
  return report(world)
})
