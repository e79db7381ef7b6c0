// From the start of the process to its first answer, with nothing held; what it takes while nobody asks anything; and how
// long the first pull of its life takes, of 42 MB.

import { setTimeout as delay } from 'node:timers/promises'
import type { Scenario } from '../scenario.ts'

const IDLE_MS = 3000

export const start: Scenario = {
  name: 'start',
  title: 'Start, rest and first pull, nothing held',
  run: async (bench) => {
    const { lab } = bench
    await lab.upstream.load({ repository: 'bench/start', tag: 'v1', layers: [1], seed: 'start' })
    const image = lab.upstream.warmUp
    await bench.fresh(['entrepot', 'stock'], async ({ peer, record }) => {
      await delay(IDLE_MS)
      record({ label: 'start to the first answer', unit: 'ms', better: 'less' }, peer.startMs)
      const { residentBytes, processorSeconds } = peer.usage()
      record({ label: 'memory idle', unit: 'MB', better: 'less' }, residentBytes / 1e6)
      record({ label: 'start and 3 s of rest, server', unit: 'CPU s', better: 'less' }, processorSeconds)
      const { address } = peer
      const first = await lab.pull({ kind: 'pull', address, image, clients: 1, connections: 3, hash: false })
      record({ label: 'first pull', unit: 's', better: 'less' }, first.wallMs / 1000)
    })
  },
}
