/** `entrepot pin`: images that are never evicted. */
import { atDesk, writeJson, type DeskChoice, type DeskWorld } from './desk.ts'
import { EXIT } from './exit.ts'
import { parsePinName } from './image-name.ts'
import { formatTable } from './table.ts'

export interface PinOptions extends DeskChoice {
  readonly remove?: boolean | undefined
}

/** Lists the pins, or adds or removes one. */
export function pin(image: string | undefined, options: PinOptions, world: DeskWorld): Promise<number> {
  const { out, err } = world.world
  if (image === undefined && options.remove) {
    err.write('error: pin --remove needs the pin to remove, as `entrepot pin` lists it\n')
    return Promise.resolve(EXIT.usage)
  }
  return atDesk(options, world, async (desk) => {
    if (image === undefined) {
      const pins = await desk.pins()
      if (options.json) writeJson({ pins }, out)
      else if (pins.length === 0) out.write('nothing is pinned\n')
      else {
        const rows = pins.map(({ upstream, pattern, from }) => [`${upstream}/${pattern}`, from])
        const paint = (padded: string, { row }: { readonly row: number }): string =>
          row === -1 ? out.paint('dim', padded) : padded
        out.write(`${formatTable(['PIN', 'FROM'], rows, { width: out.width, paint })}\n`)
      }
      return EXIT.ok
    }
    const { upstream, pattern } = parsePinName(image)
    const isChanged = options.remove ? await desk.removePin(upstream, pattern) : await desk.addPin(upstream, pattern)
    const state = options.remove
      ? isChanged
        ? 'unpinned'
        : 'was not pinned'
      : isChanged
        ? 'pinned'
        : 'was pinned already'
    if (options.json) writeJson({ upstream, pattern, changed: isChanged }, out)
    else out.write(`${upstream}/${pattern}: ${state}\n`)
    return EXIT.ok
  })
}
