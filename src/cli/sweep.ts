/** `entrepot sweep`: frees blobs that no image needs. */
import type { SweepReport } from '../keeping/sweep.ts'
import { formatBytes } from './amounts.ts'
import { atDesk, writeJson, type DeskChoice, type DeskWorld } from './desk.ts'
import { EXIT } from './exit.ts'
import { formatTable } from './table.ts'
import type { Output } from './terminal.ts'

export interface SweepOptions extends DeskChoice {
  /** Without it nothing is changed. */
  readonly yes?: boolean | undefined
}

/** Sweeps one upstream, or each of them. */
export function sweep(upstream: string | undefined, options: SweepOptions, world: DeskWorld): Promise<number> {
  return atDesk(options, world, async (desk) => {
    const isDry = options.yes !== true
    const names = upstream === undefined ? (await desk.upstreams()).map((each) => each.upstream) : [upstream]
    const reports: SweepReport[] = []
    for (const name of names) reports.push(await desk.sweep({ upstream: name, isDry }))
    const { out } = world.world
    if (options.json) writeJson({ isDry, upstreams: reports }, out)
    else writeReports(reports, isDry, out)
    return EXIT.ok
  })
}

function writeReports(reports: readonly SweepReport[], isDry: boolean, out: Output): void {
  const shown = reports.filter(({ blobs, links }) => blobs > 0 || links > 0)
  if (shown.length === 0) {
    out.write('nothing is held\n')
    return
  }
  const rows = shown.map(({ namespace, blobs, bytes, orphans, orphanBytes, links }) => [
    namespace,
    String(blobs),
    formatBytes(bytes),
    String(orphans),
    formatBytes(orphanBytes),
    String(links),
  ])
  const paint = (padded: string, { row }: { readonly row: number }): string =>
    row === -1 ? out.paint('dim', padded) : padded
  const header = ['UPSTREAM', 'BLOBS', 'SIZE', 'UNNEEDED', 'FREED', 'LINKS']
  if (isDry) header[4] = 'TO FREE'
  out.write(`${formatTable(header, rows, { width: out.width, paint })}\n`)
  const bytes = reports.reduce((sum, { orphanBytes }) => sum + orphanBytes, 0)
  if (shown.every(({ orphans, links }) => orphans === 0 && links === 0)) {
    out.write('\nNothing to free.\n')
    return
  }
  out.write(
    isDry
      ? `\n${formatBytes(bytes)} would be freed. Nothing was changed: add --yes to do it.\n`
      : `\n${formatBytes(bytes)} freed.\n`,
  )
}
