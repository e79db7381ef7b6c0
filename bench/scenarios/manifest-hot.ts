// A manifest that is held, asked by tag and by digest over 32 connections. Every peer has its own
// default TTL for tags: what it asks the upstream meanwhile is a row.

import { MANIFEST_ACCEPT } from '../../src/oci/media-types.ts'
import { loadSmall } from '../load.ts'
import { type Scenario, usageDuring } from '../scenario.ts'

const CONNECTIONS = 32

export const manifestHot: Scenario = {
  name: 'manifest-hot',
  title: `Manifest, held, ${CONNECTIONS} connections`,
  run: async (bench) => {
    const { lab, options } = bench
    const layers = Array.from({ length: 8 }, (_, index) => 1000 + index)
    const image = await lab.upstream.load({ repository: 'bench/manifest', tag: 'v1', layers, seed: 'manifest' })
    for (const [by, reference] of [
      ['tag', image.tag],
      ['digest', image.manifest.digest],
    ] as const) {
      const load = {
        path: `/v2/${image.repository}/manifests/${reference}`,
        accept: MANIFEST_ACCEPT,
        connections: CONNECTIONS,
      }
      await bench.hot(image, async ({ peer, record }) => {
        await loadSmall({ ...load, address: peer.address, seconds: 1 })
        await lab.upstream.takeCounts()
        const { result, seconds } = await usageDuring(peer, () =>
          loadSmall({ ...load, address: peer.address, seconds: options.seconds }),
        )
        const { requests } = await lab.upstream.takeCounts()
        record({ label: `by ${by}`, unit: 'replies/s', better: 'more' }, result.requestsPerSecond)
        record({ label: `by ${by}, slowest 1 %`, unit: 'ms', better: 'less' }, result.p99Ms)
        record(
          { label: `by ${by}, server`, unit: 'CPU s/10k replies', better: 'less' },
          (seconds / result.requests) * 10_000,
        )
        record({ label: `by ${by}, upstream`, unit: 'requests/reply', better: 'less' }, requests / result.requests)
      })
    }
  },
}
