/** The pins of a namespace: a small JSON file that a person can read, edit and copy with the folder. */
import { GatewayError } from '../../errors.ts'
import { readSmallFile, writeSmallFile, type SmallFileWriter } from './small-file.ts'

const MAX_PINS_BYTES = 1024 * 1024

/** No file is no pins. Rejects with STORE_FAILED when it is none of ours: taken for empty it would cost what it protects. */
export async function readPins(path: string): Promise<string[]> {
  const bytes = await readSmallFile(path, MAX_PINS_BYTES)
  if (bytes === undefined) return []
  const pins = parsePins(bytes.toString('utf8'))
  if (pins !== undefined) return pins
  throw new GatewayError(
    'STORE_FAILED',
    `read ${path}: it is not {"pins": ["REPOSITORY:TAG", …]}; mend or remove it: until then nothing is evicted there`,
  )
}

export async function writePins(writer: SmallFileWriter, path: string, pins: readonly string[]): Promise<void> {
  await writeSmallFile(writer, path, Buffer.from(`${JSON.stringify({ pins }, null, 2)}\n`))
}

function parsePins(text: string): string[] | undefined {
  try {
    const parsed: unknown = JSON.parse(text)
    if (typeof parsed !== 'object' || parsed === null || !('pins' in parsed) || !Array.isArray(parsed.pins)) return
    const pins: unknown[] = parsed.pins
    return pins.every((pin) => typeof pin === 'string') ? pins : undefined
  } catch {
    return undefined
  }
}
