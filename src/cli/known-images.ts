/** A small public image of each shipped registry: something to pull, and something to ask for. */

/** `repository:tag` by upstream, in the order in which one is chosen as an example. */
export const KNOWN_IMAGES: ReadonlyMap<string, string> = new Map([
  ['docker.io', 'library/alpine:latest'],
  ['quay.io', 'prometheus/busybox:latest'],
  ['registry.k8s.io', 'pause:3.10'],
  ['mcr.microsoft.com', 'hello-world:latest'],
  ['public.ecr.aws', 'docker/library/alpine:latest'],
  ['gcr.io', 'distroless/static:latest'],
])
