// From the start of the process to its first answer, with nothing held; and what it takes while nobody asks anything.

import { setTimeout as delay } from 'node:timers/promises'
import type { Scenario } from '../scenario.ts'

const IDLE_MS = 3000

export const start: Scenario = {
  name: 'start',
  title: 'Start and rest, nothing held',
  run: (bench) =>
    bench.cold(['entrepot', 'stock'], async ({ peer, record }) => {
      await delay(IDLE_MS)
      record({ label: 'start to the first answer', unit: 'ms', better: 'less' }, peer.startMs)
      const { residentBytes, processorSeconds } = peer.usage()
      record({ label: 'memory idle', unit: 'MB', better: 'less' }, residentBytes / 1e6)
      record({ label: 'start and 3 s of rest, server', unit: 'CPU s', better: 'less' }, processorSeconds)
    }),
}
