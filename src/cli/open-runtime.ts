/** The running parts as the commands see them. Imported lazily by `run.ts`, so that `--help` loads none of it. */
import { openProbes, startGateway } from '../gateway.ts'
import { openLog } from '../telemetry/log.ts'
import type { Runtime } from './runtime.ts'

export function openRuntime(): Runtime {
  return { openLog, startGateway, openProbes }
}
