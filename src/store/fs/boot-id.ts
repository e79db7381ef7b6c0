/** Which start of the machine this is: what a killed process wrote without a sync is still there until the next one. */
import { readFile } from 'node:fs/promises'

// Rule: Linux, Documentation/admin-guide/sysctl/kernel.rst. A container sees its host's, whose page cache it uses.
const BOOT_ID = '/proc/sys/kernel/random/boot_id'

/** Undefined where the system does not tell: then only synced bytes are believed. */
export async function loadBootId(): Promise<string | undefined> {
  try {
    const id = (await readFile(BOOT_ID, 'latin1')).trim()
    return /^[0-9a-f-]{36}$/.test(id) ? id : undefined
  } catch {
    return undefined
  }
}
