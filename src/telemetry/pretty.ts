/** One log line for people: `12:34:56.789 info  request.done method=GET status=200`. */
import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

const LEVEL_STYLES: Readonly<Record<string, Style>> = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' }
const PLAIN = /^[\w./:@+*%-]+$/
// Controls, invisible format characters (also those that turn the writing direction), and line separators: nothing that
// a terminal would act on, or that could make one line look like two.
const CONTROL = /[\p{Cc}\p{Cf}\u2028\u2029]/gu

/** Formats one JSON line of ours. A line that is no JSON object comes back without its control characters. */
export function formatLine(json: string): string {
  const line = parseObject(json)
  if (line === undefined) return `${withoutControls(json.trimEnd())}\n`
  const { time, level, event, ...fields } = line
  const clock = typeof time === 'string' ? time.slice(11, 23) : ''
  const name = typeof level === 'string' ? level : ''
  const pairs = Object.entries(fields).map(([key, value]) => `${styled('dim', `${key}=`)}${formatValue(value)}`)
  const head = [
    styled('dim', clock),
    styled(LEVEL_STYLES[name] ?? 'reset', name.padEnd(5)),
    styled('bold', String(event)),
  ]
  return `${[...head, ...pairs].join(' ')}\n`
}

function formatValue(value: unknown): string {
  if (typeof value === 'string' && PLAIN.test(value)) return value
  return withoutControls(JSON.stringify(value) ?? 'undefined')
}

function withoutControls(text: string): string {
  return text.replaceAll(CONTROL, (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`)
}

/** Whether to colour at all was decided by choosing this form; NO_COLOR and the terminal's depth still count. */
function styled(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout })
}

function parseObject(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null ? { ...value } : undefined
  } catch {
    return undefined
  }
}
