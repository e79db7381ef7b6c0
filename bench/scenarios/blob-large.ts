// A blob of 256 MiB that is held, over 1 and over 16 streams.

import { type Scenario, usageDuring } from '../scenario.ts'

const MIB = 1024 * 1024
/** Repeats give each sample 2 GiB or more: a processor tick of 10 ms is then a few percent of it. */
const LOADS = [
  { label: '1 stream', connections: 1, repeats: 8 },
  { label: '16 streams', connections: 16, repeats: 1 },
] as const

export const blobLarge: Scenario = {
  name: 'blob-large',
  title: 'Blob of 256 MiB, held',
  run: async (bench) => {
    const plan = { repository: 'bench/large', tag: 'v1', layers: [bench.bytes(256 * MIB)], seed: 'large' }
    const image = await bench.lab.upstream.load(plan)
    const [layer] = image.layers
    if (layer === undefined) throw new Error('the image has no layer')
    const path = `/v2/${image.repository}/blobs/${layer.digest}`
    for (const { label, connections, repeats } of LOADS) {
      await bench.hot(image, async ({ peer, record }) => {
        const { address } = peer
        const { result, seconds, after } = await usageDuring(peer, () =>
          bench.lab.pull({ kind: 'stream', address, path, bytes: layer.size, connections, repeats }),
        )
        const gigabytes = result.bytes / 1e9
        record({ label, unit: 'GB/s', better: 'more' }, gigabytes / (result.wallMs / 1000))
        record({ label: `${label}, server`, unit: 'CPU s/GB', better: 'less' }, seconds / gigabytes)
        record({ label: `${label}, server peak`, unit: 'MB', better: 'less' }, after.peakBytes / 1e6)
        record({ label: `${label}, client busy`, unit: '% of a core' }, (result.clientSeconds * 1e5) / result.wallMs)
      })
    }
  },
}
