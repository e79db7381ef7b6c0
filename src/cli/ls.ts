/** `entrepot ls`: the images that are held. */
import type { ImageHeld, OperatorDesk, UpstreamHeld } from '../keeping/operator.ts'
import { formatAge, formatBytes, formatCount } from './amounts.ts'
import { atDesk, writeJson, type DeskChoice, type DeskWorld } from './desk.ts'
import { EXIT } from './exit.ts'
import { parseImageName } from './image-name.ts'
import { formatTable } from './table.ts'
import type { Output } from './terminal.ts'

export interface LsOptions extends DeskChoice {
  /** Most images that are listed. */
  readonly limit?: number | undefined
}

const PAGE = 200
const DEFAULT_LIMIT = 1_000

export function ls(image: string | undefined, options: LsOptions, world: DeskWorld): Promise<number> {
  return atDesk(options, world, async (desk) => {
    const { upstream, repository } = image === undefined ? {} : parseImageName(image)
    const { images, isMore } = await readImages(desk, { upstream, repository }, options.limit ?? DEFAULT_LIMIT)
    const upstreams = (await desk.upstreams()).filter(
      ({ upstream: name }) => upstream === undefined || name === upstream,
    )
    const { out } = world.world
    if (options.json) writeJson({ images, isMore, upstreams }, out)
    else writeList({ images, isMore, upstreams, isPart: repository !== undefined }, out)
    return EXIT.ok
  })
}

interface Listing {
  readonly images: readonly ImageHeld[]
  readonly isMore: boolean
  readonly upstreams: readonly UpstreamHeld[]
  /** Only one repository was asked for. */
  readonly isPart: boolean
}

async function readImages(
  desk: OperatorDesk,
  wanted: { readonly upstream?: string | undefined; readonly repository?: string | undefined },
  limit: number,
): Promise<Pick<Listing, 'images' | 'isMore'>> {
  const images: ImageHeld[] = []
  for (let after: string | undefined; ;) {
    const page = await desk.images({ ...wanted, after, limit: Math.min(PAGE, limit - images.length) })
    images.push(...page.images)
    after = page.next
    if (after === undefined || images.length >= limit) return { images, isMore: after !== undefined }
  }
}

function writeList({ images, isMore, upstreams, isPart }: Listing, out: Output): void {
  if (images.length === 0) {
    out.write('no image is held\n')
    return
  }
  const now = Date.now()
  const rows = images.map((image) => [
    `${image.upstream}/${image.repository}`,
    image.tags.length > 0 ? image.tags.join(' ') : shortDigest(image.digest),
    formatBytes(image.bytes),
    formatAge(image.usedAt, now),
    String(image.pulls),
    image.isPinned ? 'pinned' : '',
  ])
  const paint = (padded: string, { row }: { readonly row: number }): string =>
    row === -1 ? out.paint('dim', padded) : padded
  const header = ['IMAGE', 'TAGS', 'SIZE', 'LAST USED', 'PULLS', images.some(({ isPinned }) => isPinned) ? 'KEPT' : '']
  out.write(`${formatTable(header, rows, { width: out.width, paint })}\n`)
  if (isMore)
    out.write(`${out.paint('dim', `the first ${images.length}; name an upstream or repository, or set --limit`)}\n`)
  if (isPart) return
  out.write('\n')
  for (const { upstream, bytes, quotaBytes } of upstreams.filter(({ bytes }) => bytes > 0)) {
    const quota = quotaBytes === undefined ? '' : ` of ${formatBytes(quotaBytes)}`
    out.write(`${upstream}: ${formatBytes(bytes)}${quota} on the disk\n`)
  }
  out.write(
    `${formatCount(images.length, 'image')}${isMore ? ' and more' : ''}; layers they share are counted with each\n`,
  )
}

/** Enough of a digest to tell it from others on a screen. */
export function shortDigest(digest: string): string {
  return `@${digest.slice(0, digest.indexOf(':') + 13)}`
}
