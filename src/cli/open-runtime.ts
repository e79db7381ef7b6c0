/** The running parts as the commands see them. Imported lazily by `run.ts`, so that `--help` loads none of it. */
import { startGateway } from '../gateway.ts'
import { openProbes } from '../probes.ts'
import { createLog, type Log } from '../telemetry/log.ts'
import type { Runtime } from './runtime.ts'

export function openRuntime(): Runtime<Log> {
  return {
    openLog: ({ level, format }) => createLog({ level, ...(format === 'auto' ? {} : { pretty: format === 'pretty' }) }),
    startGateway,
    openProbes,
  }
}
