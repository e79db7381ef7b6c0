/** Media types a registry speaks, and the one Accept list we ask every upstream with. */

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
export const DOCKER_SCHEMA1 = 'application/vnd.docker.distribution.manifest.v1+json'
export const DOCKER_SCHEMA1_SIGNED = 'application/vnd.docker.distribution.manifest.v1+prettyjws'
/** Withdrawn before image-spec 1.1, still found in old ORAS content. */
export const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json'

export const INDEX_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST]
export const IMAGE_TYPES: readonly string[] = [OCI_MANIFEST, DOCKER_MANIFEST]

/**
 * What we accept, always whole and in this order: some registries give another document for the same tag, or 404, to a
 * client that names fewer types, and one answer must serve every client.
 */
export const MANIFEST_ACCEPT = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT, '*/*'].join(', ')
