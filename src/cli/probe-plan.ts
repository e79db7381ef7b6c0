/** What to ask an upstream for, so that each of its credentials is tried. Pure. */
import type { UpstreamConfig } from '../config/config.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { parseRepository, type Repository } from '../oci/repository.ts'
import { KNOWN_IMAGES } from './known-images.ts'

export interface ProbeTarget {
  readonly repository: Repository
  readonly tag: Tag
  /** Whether the image is known to be there: then its absence is a failure. */
  readonly isKnown: boolean
}

/** An image that need not be there: a login is asked for some repository. */
const UNKNOWN_IMAGE = 'entrepot/probe:latest'

/** One target for each credential by repository, and one for all others; none only for patterns that name no repository. */
export function planProbes({ name, auth = [] }: Pick<UpstreamConfig, 'name' | 'auth'>): ProbeTarget[] {
  const special = auth.flatMap(({ repositories }) => repositories?.slice(0, 1) ?? [])
  const images = special.map((pattern) => `${pattern.replaceAll(/\*+/g, 'probe')}:latest`)
  const known = KNOWN_IMAGES.get(name)
  return [
    ...targetOf(known ?? UNKNOWN_IMAGE, known !== undefined),
    ...images.flatMap((image) => targetOf(image, false)),
  ]
}

function targetOf(image: string, isKnown: boolean): ProbeTarget[] {
  const [repositoryText = '', tagText = ''] = image.split(':')
  const [repository, tag] = [parseRepository(repositoryText), parseTag(tagText)]
  return repository === undefined || tag === undefined ? [] : [{ repository, tag, isKnown }]
}
