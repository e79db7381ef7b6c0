/** Sizes and ages as people read them. Pure. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1536` is `1.5 KiB`: three digits at most before the unit. */
export function formatBytes(bytes: number): string {
  let unit = 0
  let amount = bytes
  while (amount >= 999.5 && unit < UNITS.length - 1) {
    amount /= 1024
    unit++
  }
  const digits = unit === 0 || amount >= 9.95 ? 0 : 1
  return `${amount.toFixed(digits)} ${UNITS[unit]}`
}

const STEPS = [
  [365 * 86_400, 'year'],
  [30 * 86_400, 'month'],
  [86_400, 'day'],
  [3_600, 'hour'],
  [60, 'minute'],
] as const

/** How long before `now` (epoch ms) an ISO time was: `3 days ago`. */
export function formatAge(iso: string, now: number): string {
  const seconds = (now - Date.parse(iso)) / 1000
  for (const [length, name] of STEPS) {
    const count = Math.floor(seconds / length)
    if (count >= 1) return `${count} ${name}${count === 1 ? '' : 's'} ago`
  }
  return 'just now'
}

/** `1 image`, `2 images`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
