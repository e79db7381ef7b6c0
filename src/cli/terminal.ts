/** Where commands write: two streams, and what they can show. */
import { styleText } from 'node:util'

export type Style = Parameters<typeof styleText>[0]

/** A text sink with its width in columns (Infinity when it is no terminal) and its own say about colour. */
export interface Output {
  readonly isTerminal: boolean
  readonly width: number
  write(text: string): void
  /** `text` in a style, where the stream shows styles; honours NO_COLOR and FORCE_COLOR. */
  paint(style: Style, text: string): string
}

/** What a command has of the world around it. */
export interface Surroundings {
  readonly out: Output
  readonly err: Output
  readonly env: Readonly<Record<string, string | undefined>>
  readonly workingFolder: string
  /** Version and folder of this program. */
  readonly version: string
  readonly programFolder: string
}

/** Writes to a stream of the process. */
export function streamOutput(stream: NodeJS.WriteStream): Output {
  return {
    isTerminal: stream.isTTY,
    get width() {
      return stream.isTTY ? stream.columns || 80 : Infinity
    },
    write: (text) => void stream.write(text),
    paint: (style, text) => styleText(style, text, { stream }),
  }
}
