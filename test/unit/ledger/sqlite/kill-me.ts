/** A process that writes tags until it is killed; says how many were flushed before it went on. */
import { openSqliteLedger } from '../../../../src/ledger/sqlite/sqlite-ledger.ts'
import { aDigest, aRepository, aTag } from '../../../conformance/ledger.ts'

const ledger = await openSqliteLedger({
  path: String(process.argv[2]),
  onError: (error) => process.stderr.write(`${error}\n`),
})
const repository = aRepository('library/alpine')
const write = (n: number): void =>
  ledger.writeTag('docker.io', repository, aTag(`t${n}`), { digest: aDigest(n), checkedAt: n })
ledger.markComplete('docker.io')
let count = 0
for (; count < 5000; count++) write(count)
await ledger.readTag('docker.io', repository, aTag('t0'))
process.stdout.write(`written ${count}\n`)
for (;;) {
  write(count++)
  if (count % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
}
