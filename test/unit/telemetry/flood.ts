/** A process that logs more than its unread stdout holds, then goes on after the reader is gone. */
import { writeSync } from 'node:fs'
import { createLog } from '../../../src/telemetry/log.ts'

const log = createLog()
const message = 'x'.repeat(1000)
const start = performance.now()
for (let n = 0; n < 5000; n++) {
  log.event('ledger.failed', { reason: message })
  if (n % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
}
writeSync(2, `flooded in ${Math.round(performance.now() - start)} ms, ${log.dropped} dropped\n`)
await new Promise((resolve) => setTimeout(resolve, 200))
for (let n = 0; n < 10; n++) {
  log.event('ledger.failed', { reason: message })
  await new Promise((resolve) => setTimeout(resolve, 5))
}
writeSync(2, 'still alive\n')
process.exit(0)
