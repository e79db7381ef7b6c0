// One client pulls an image that nobody holds, as containerd does, over three connections.

import type { Pace } from '../upstream.ts'
import { type Scenario, usageDuring } from '../scenario.ts'

const MB = 1_000_000
/** 300 MB in the shape of a real image: one layer holds half of it. */
const LAYERS_MB = [150, 80, 40, 20, 8, 2]
const CONNECTIONS = 3

const PACES: readonly { readonly label: string; readonly pace: Pace }[] = [
  { label: 'upstream unlimited', pace: {} },
  { label: '100 MB/s a connection', pace: { bytesPerSecond: 100 * MB } },
  { label: '25 MB/s a connection', pace: { bytesPerSecond: 25 * MB } },
]

export const coldPull: Scenario = {
  name: 'cold-pull',
  title: 'Image of 300 MB, not held, one client',
  run: async (bench) => {
    const { lab } = bench
    const layers = LAYERS_MB.map((megabytes) => bench.bytes(megabytes * MB))
    const image = await lab.upstream.load({ repository: 'bench/cold', tag: 'v1', layers, seed: 'cold' })
    for (const { label, pace } of PACES) {
      await lab.upstream.pace(pace)
      await bench.cold(['entrepot', 'stock', 'direct'], async ({ name, peer, record }) => {
        const { address } = peer
        const { result, seconds, after } = await usageDuring(peer, () =>
          lab.pull({ kind: 'pull', address, image, clients: 1, connections: CONNECTIONS, hash: false }),
        )
        record({ label, unit: 's', better: 'less' }, result.wallMs / 1000)
        if (name === 'direct') return
        await bench.settle()
        const { bytes } = await lab.upstream.takeCounts()
        record({ label: `${label}, upstream`, unit: 'bytes/image', better: 'less' }, bytes / image.bytes)
        record({ label: `${label}, server`, unit: 'CPU s', better: 'less' }, seconds)
        record({ label: `${label}, server peak`, unit: 'MB', better: 'less' }, after.peakBytes / 1e6)
      })
    }
    await lab.upstream.pace({})
    await bench.check(['entrepot', 'stock', 'direct'], image, 1)
  },
}
