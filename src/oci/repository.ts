/** Repository names: `<name>` of the distribution spec, checked once at the edge. */

declare const repositoryBrand: unique symbol
/** A valid repository name such as `library/alpine`, at most 255 characters. Made only by {@link parseRepository}. */
export type Repository = string & { readonly [repositoryBrand]: true }

// distribution-spec, "Pulling manifests": the grammar of <name>.
const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`)
/** The spec warns that many clients limit host + "/" + name to 255; we hold the name itself to it. */
export const MAX_REPOSITORY_LENGTH = 255

/** Parses a repository name; undefined when it does not fit the grammar or the length. */
export function parseRepository(text: string): Repository | undefined {
  return text.length <= MAX_REPOSITORY_LENGTH && NAME.test(text) ? (text as Repository) : undefined
}
