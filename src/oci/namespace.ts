/** Names of namespaces as folders: the one rule of the configuration, which refuses others, and the store, which opens them. */

// One path component that is no dot name, hidden name or database of ours beside it.
const NAMESPACE = /^(?!.*\.sqlite(?:-\w+)?$)[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?$/

/** Whether a namespace's folder may have that name. */
export function isNamespaceFolder(name: string): boolean {
  return NAMESPACE.test(name)
}
