/** `entrepot purge`: removes an upstream's images, a repository, a tag or a digest from the disk. */
import type { OperatorDesk, PurgedImage, PurgeReport, PurgeSelector } from '../keeping/operator.ts'
import { formatBytes, formatCount } from './amounts.ts'
import { atDesk, writeJson, type DeskChoice, type DeskWorld } from './desk.ts'
import { EXIT } from './exit.ts'
import { parseImageName } from './image-name.ts'
import { shortDigest } from './ls.ts'
import { formatTable } from './table.ts'
import type { Output } from './terminal.ts'

export interface PurgeOptions extends DeskChoice {
  /** Without it nothing is changed. */
  readonly yes?: boolean | undefined
}

/** Rows of the table; a whole upstream may have a hundred thousand. */
const MAX_ROWS = 200

export function purge(image: string, options: PurgeOptions, world: DeskWorld): Promise<number> {
  return atDesk(options, world, async (desk) => {
    const selector = parseImageName(image)
    const report = await purgeAll(desk, selector, options.yes !== true)
    const { out } = world.world
    if (options.json) writeJson(report, out)
    else writeReport(selector, report, out)
    return EXIT.ok
  })
}

async function purgeAll(desk: OperatorDesk, selector: PurgeSelector, isDry: boolean): Promise<PurgeReport> {
  const images: PurgedImage[] = []
  let bytes = 0
  let inUse = 0
  for (let after: string | undefined; ;) {
    const page = await desk.purge({ ...selector, isDry, after })
    images.push(...page.images)
    bytes += page.bytes
    inUse += page.inUse
    after = page.next
    if (after === undefined) return { isDry, images, bytes, inUse }
  }
}

const OUTCOMES: Readonly<Record<PurgedImage['outcome'], string>> = {
  removed: 'removed',
  untagged: 'tag removed, other tags point to it',
  needed: 'tag removed, another image names it',
  pinned: 'kept: it is pinned, see entrepot pin',
}

function writeReport({ upstream }: PurgeSelector, report: PurgeReport, out: Output): void {
  const { isDry, images, bytes, inUse } = report
  if (images.length === 0) {
    out.write('no such image is held\n')
    return
  }
  const rows = images
    .slice(0, MAX_ROWS)
    .map(({ repository, digest, tags, outcome }) => [
      `${upstream}/${repository}`,
      tags.length > 0 ? tags.join(' ') : shortDigest(digest),
      isDry ? OUTCOMES[outcome].replace('removed', 'would be removed') : OUTCOMES[outcome],
    ])
  const paint = (padded: string, { row }: { readonly row: number }): string =>
    row === -1 ? out.paint('dim', padded) : padded
  out.write(`${formatTable(['IMAGE', 'TAGS', 'OUTCOME'], rows, { width: out.width, paint })}\n`)
  if (images.length > MAX_ROWS) out.write(`and ${images.length - MAX_ROWS} more\n`)
  const gone = formatCount(images.filter(({ outcome }) => outcome === 'removed').length, 'image')
  if (images.every(({ outcome }) => outcome === 'pinned')) return
  out.write(
    isDry
      ? `\n${gone}, ${formatBytes(bytes)} would be freed. Nothing was changed: add --yes to do it.\n`
      : `\n${gone} removed, ${formatBytes(bytes)} freed.\n`,
  )
  if (inUse > 0) out.write(`${formatCount(inUse, 'blob')} in use stayed; the next sweep takes them.\n`)
}
