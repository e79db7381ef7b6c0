// Fifty clients ask for one image at the same moment, and nobody holds it. The same once more, held, is the floor.

import { type Scenario, usageDuring } from '../scenario.ts'

const MB = 1_000_000
const LAYERS_MB = [150, 80, 40, 20, 8, 2]
const CLIENTS = 50
const BYTES_PER_SECOND = 50 * MB
/** The clients of the pass that hashes: a Node process that hashes all it reads for fifty would only measure itself. */
const HASHING_CLIENTS = 8

export const storm: Scenario = {
  name: 'storm',
  title: `Image of 300 MB, ${CLIENTS} clients at once, upstream at 50 MB/s a connection`,
  run: async (bench) => {
    const { lab } = bench
    const layers = LAYERS_MB.map((megabytes) => bench.bytes(megabytes * MB))
    const image = await lab.upstream.load({ repository: 'bench/storm', tag: 'v1', layers, seed: 'storm' })
    await lab.upstream.pace({ bytesPerSecond: BYTES_PER_SECOND })
    await bench.cold(['entrepot', 'stock'], async ({ peer, record }) => {
      const job = { kind: 'pull', address: peer.address, image, clients: CLIENTS, connections: 3, hash: false } as const
      const { result, seconds, after } = await usageDuring(peer, () => lab.pull(job))
      await bench.settle()
      const { bytes } = await lab.upstream.takeCounts()
      const floor = await lab.pull(job)
      record({ label: 'wall', unit: 's', better: 'less' }, result.wallMs / 1000)
      record({ label: 'wall, held', unit: 's', better: 'less' }, floor.wallMs / 1000)
      record({ label: 'upstream', unit: 'bytes/image', better: 'less' }, bytes / image.bytes)
      record({ label: 'slowest manifest', unit: 'ms', better: 'less' }, result.manifestMs)
      record({ label: 'slowest first byte', unit: 'ms', better: 'less' }, result.firstByteMs)
      record({ label: 'server', unit: 'CPU s', better: 'less' }, seconds)
      record({ label: 'server peak', unit: 'MB', better: 'less' }, after.peakBytes / 1e6)
      record({ label: 'client busy', unit: '% of a core' }, (result.clientSeconds * 1e5) / result.wallMs)
    })
    await bench.check(['entrepot', 'stock'], image, HASHING_CLIENTS)
    await lab.upstream.pace({})
  },
}
