/** Durations, sizes and shares as people write them. Pure; numbers come out in milliseconds, bytes and fractions of one. */

const DURATION_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

// Decimal units mean powers of 1000 and binary ones powers of 1024, as the names say. `K` alone is refused: it is both.
const SIZE_BYTES = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
} as const

const QUANTITY = /^(\d{1,12}(?:\.\d{1,6})?)\s?([A-Za-z]+)$/

/** Parses `250ms`, `30s`, `15m`, `24h`, `7d`, `0` and `unlimited` (Infinity) to milliseconds; anything else is undefined. */
export function parseDuration(text: string): number | undefined {
  return parseQuantity(text, DURATION_MS)
}

/** Parses `512KiB`, `10GiB`, `1GB`, `0` and `unlimited` (Infinity) to bytes; anything else is undefined. */
export function parseSize(text: string): number | undefined {
  return parseQuantity(text, SIZE_BYTES)
}

/** Parses `10%` to 0.1; from 0 to 100 per cent, anything else is undefined. */
export function parseShare(text: string): number | undefined {
  const match = /^(\d{1,3}(?:\.\d{1,3})?)\s?%$/.exec(text)
  const percent = Number(match?.[1])
  return percent >= 0 && percent <= 100 ? percent / 100 : undefined
}

function parseQuantity(text: string, units: Readonly<Record<string, number>>): number | undefined {
  if (text === 'unlimited') return Infinity
  if (text === '0') return 0
  const [, amount, unit] = QUANTITY.exec(text) ?? []
  if (unit === undefined || !Object.hasOwn(units, unit)) return undefined
  const value = Math.round(Number(amount) * (units[unit] ?? Number.NaN))
  return Number.isSafeInteger(value) ? value : undefined
}
