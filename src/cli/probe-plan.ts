/** What to ask an upstream for, so that each of its credentials is tried. Pure. */
import type { UpstreamConfig } from '../config/config.ts'
import { parseReference, type Reference } from '../oci/reference.ts'
import { parseRepository, type Repository } from '../oci/repository.ts'
import { KNOWN_IMAGES } from './known-images.ts'

export interface ProbeTarget {
  readonly repository?: Repository
  /** Only where the image is known to be there: a 404 would say nothing of the registry. */
  readonly reference?: Reference
}

// A login is asked for a repository; none need have this name.
const ANY_REPOSITORY = 'entrepot/probe'

/** One target for each credential by repository, else one for all; never empty. */
export function planProbes({ name, auth = [] }: UpstreamConfig): ProbeTarget[] {
  const special = auth.flatMap(({ repositories }) => repositories?.slice(0, 1) ?? [])
  const targets = special.map((pattern) => targetOf(pattern.replaceAll(/\*+/g, 'probe'), undefined))
  const hasGeneral = auth.length === 0 || auth.some(({ repositories }) => repositories === undefined)
  if (!hasGeneral) return targets
  const [repository = ANY_REPOSITORY, tag] = KNOWN_IMAGES.get(name)?.split(':') ?? []
  return [targetOf(repository, tag), ...targets]
}

function targetOf(repositoryText: string, tag: string | undefined): ProbeTarget {
  const repository = parseRepository(repositoryText)
  const reference = tag === undefined ? undefined : parseReference(tag)
  return { ...(repository && { repository }), ...(repository && reference && { reference }) }
}
