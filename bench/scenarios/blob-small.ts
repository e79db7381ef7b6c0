// A blob of 100 kB that is held: an image config, a small layer.

import { loadSmall } from '../load.ts'
import { type Scenario, usageDuring } from '../scenario.ts'

const CONNECTIONS = 32
const BYTES = 100_000

export const blobSmall: Scenario = {
  name: 'blob-small',
  title: `Blob of 100 kB, held, ${CONNECTIONS} connections`,
  run: async (bench) => {
    const plan = { repository: 'bench/small', tag: 'v1', layers: [BYTES], seed: 'small' }
    const image = await bench.lab.upstream.load(plan)
    const load = { path: `/v2/${image.repository}/blobs/${image.layers[0]?.digest}`, connections: CONNECTIONS }
    await bench.hot(image, async ({ peer, record }) => {
      await loadSmall({ ...load, address: peer.address, seconds: 1 })
      const { result, seconds } = await usageDuring(peer, () =>
        loadSmall({ ...load, address: peer.address, seconds: bench.options.seconds }),
      )
      record({ label: '100 kB', unit: 'replies/s', better: 'more' }, result.requestsPerSecond)
      record({ label: '100 kB, slowest 1 %', unit: 'ms', better: 'less' }, result.p99Ms)
      record(
        { label: '100 kB, server', unit: 'CPU s/10k replies', better: 'less' },
        (seconds / result.requests) * 10_000,
      )
    })
  },
}
