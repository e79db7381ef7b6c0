/** Host patterns such as `*.pkg.dev`: one declared file for a registry with many hosts. Pure. */

export interface HostPattern {
  readonly text: string
  readonly labels: readonly string[]
}

const LABEL = /^[a-z0-9-]*\*?[a-z0-9-]*$/
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** Parses a pattern: `*` for every host, or labels with at most one star each. Undefined when it is none. */
export function parseHostPattern(text: string): HostPattern | undefined {
  const lower = text.toLowerCase()
  if (!lower.includes('*')) return undefined
  const labels = lower.split('.')
  return labels.every((label) => label !== '' && LABEL.test(label)) ? { text: lower, labels } : undefined
}

// Names that no public registry has: a pattern must not let a client name a host inside (RFC 6761, 6762, 8375, 9476).
const INSIDE = new RegExp(
  '(?:^|\\.)(?:localhost|local|localdomain|internal|intranet|lan|home|corp|private|arpa|test|invalid|example|onion|alt)$',
)

/**
 * Whether a concrete host fits. A star stands for one label, or a part of one; `*` alone for any name that looks public:
 * at least two labels, no address, no name that only exists inside a network.
 */
export function matchesPattern(pattern: HostPattern, host: string): boolean {
  const labels = host.split('.')
  if (host.length > 253 || labels.length < 2 || !labels.every((label) => DNS_LABEL.test(label))) return false
  if (/^\d+$/.test(labels.at(-1) ?? '')) return false // an IPv4 address
  if (pattern.labels.at(-1)?.includes('*') === true && INSIDE.test(host)) return false
  if (pattern.text === '*') return true
  return (
    labels.length === pattern.labels.length &&
    labels.every((label, at) => {
      const [head = '', tail] = (pattern.labels[at] ?? '').split('*')
      if (tail === undefined) return label === head
      return label.length > head.length + tail.length && label.startsWith(head) && label.endsWith(tail)
    })
  )
}

/** How `a` and `b` relate: `narrower` when all that fits `a` fits `b`; `crossing` when only some does. */
export function comparePatterns(
  a: HostPattern,
  b: HostPattern,
): 'equal' | 'narrower' | 'wider' | 'crossing' | 'disjoint' {
  if (a.text === b.text) return 'equal'
  if (b.text === '*') return 'narrower'
  if (a.text === '*') return 'wider'
  if (a.labels.length !== b.labels.length) return 'disjoint'
  let narrower = true
  let wider = true
  for (const [at, left] of a.labels.entries()) {
    const right = b.labels[at] ?? ''
    if (!labelsMeet(left, right)) return 'disjoint'
    narrower &&= labelWithin(left, right)
    wider &&= labelWithin(right, left)
  }
  return narrower ? 'narrower' : wider ? 'wider' : 'crossing'
}

function labelsMeet(a: string, b: string): boolean {
  const [headA = '', tailA] = a.split('*')
  const [headB = '', tailB] = b.split('*')
  if (tailA === undefined) return tailB === undefined ? a === b : labelWithin(a, b)
  if (tailB === undefined) return labelWithin(b, a)
  return (headA.startsWith(headB) || headB.startsWith(headA)) && (tailA.endsWith(tailB) || tailB.endsWith(tailA))
}

/** Whether every label that fits `inner` fits `outer`. */
function labelWithin(inner: string, outer: string): boolean {
  const [head = '', tail] = outer.split('*')
  if (tail === undefined) return inner === outer
  if (!inner.includes('*') && inner.length <= head.length + tail.length) return false
  return inner.startsWith(head) && inner.endsWith(tail)
}
