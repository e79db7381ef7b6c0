/** What one upstream's file must not say, beyond what its schema can know. Mostly: who would receive the credentials. */
import { isNamespaceFolder } from '../oci/namespace.ts'
import { parseHostPattern } from '../routing/pattern.ts'
import { isLoopback } from './loopback.ts'
import type { DeclaredUpstream } from './declared.ts'
import type { Problem } from './source.ts'
import { UPSTREAM_NAME } from './upstream-schema.ts'

// Beside the upstreams' folders in `data`, or the API's own first path segment.
const RESERVED_NAMES: readonly string[] = ['v2', 'incoming']
const MAX_NAME_LENGTH = 128

/** `isIdentified`: no client reaches an upstream without a password or a certificate. */
export function checkUpstream(declared: DeclaredUpstream, isIdentified: boolean): Problem[] {
  return [...checkName(declared), ...checkCredentials(declared, isIdentified), ...checkPairs(declared)]
}

function checkName({ upstream, source }: DeclaredUpstream): Problem[] {
  const { name, routes } = upstream
  const problems: Problem[] = []
  const isName = upstream.isPattern ? parseHostPattern(name) !== undefined : UPSTREAM_NAME.test(name)
  if (!isName || name.length > MAX_NAME_LENGTH) {
    problems.push(
      source.problemAt(
        ['name'],
        `${JSON.stringify(name)} is no name of an upstream, write for example ghcr.io or, as a pattern, *.pkg.dev`,
      ),
    )
  } else if (RESERVED_NAMES.includes(name) || /\.sqlite(?:-\w+)?$/.test(name)) {
    problems.push(source.problemAt(['name'], `${name} is reserved: choose another name`))
  } else if (!upstream.isPattern && !isNamespaceFolder(name.replace(':', '_'))) {
    const text = `${name} can name no folder below data: begin and end it with a letter or a digit`
    problems.push(source.problemAt(['name'], text))
  }
  if (routes.prefix?.split('/')[0] === 'v2')
    problems.push(source.problemAt(['routes', 'prefix'], 'v2 starts every path of a registry: choose another prefix'))
  const fixed = [
    { path: ['aliases'], isSet: upstream.aliases.length > 0 },
    { path: ['routes', 'hosts'], isSet: routes.hosts.length > 0 },
    { path: ['routes', 'port'], isSet: routes.port !== undefined },
    { path: ['routes', 'prefix'], isSet: routes.prefix !== name },
  ]
  for (const { path } of upstream.isPattern ? fixed.filter(({ isSet }) => isSet) : []) {
    problems.push(
      source.problemAt(
        path,
        `would not say which host of the pattern ${name} is meant: give that host a file of its own`,
      ),
    )
  }
  return problems
}

function checkCredentials({ upstream, source }: DeclaredUpstream, isIdentified: boolean): Problem[] {
  const { auth = [], network, name, clients } = upstream
  const problems: Problem[] = []
  const at = source.problemAt.bind(source)
  for (const [index, credential] of auth.entries()) {
    if (upstream.isPattern && credential.username !== undefined) {
      const message = `a user name and password must not stand on the pattern ${name}: a stranger could name the host that receives them; use helper, or one file a host`
      problems.push(at(['auth', index, 'username'], message))
    }
  }
  const general = auth.flatMap((credential, index) => (credential.repositories === undefined ? [index] : []))
  for (const index of general.slice(1)) {
    problems.push(
      at(['auth', index], 'is for all repositories, and so is an earlier one: give one of them repositories'),
    )
  }
  const isForSome = clients?.users !== undefined || clients?.certificates !== undefined
  const isOpen = !isIdentified && !isForSome
  if ((auth.length > 0 || network.cert !== undefined) && isOpen && upstream.access !== 'shared') {
    const whose = auth.length > 0 ? 'credentials' : 'a client certificate'
    const message = `${name} has ${whose} and clients need none: everything readable with them, private images too, is shared with whoever reaches this gateway. If that is meant, add the line "access: shared"`
    problems.push(at([auth.length > 0 ? 'auth' : 'network'], message))
  }
  if (auth.length > 0 && !upstream.allowPlaintextCredentials) {
    for (const [index, { url }] of upstream.url.entries()) {
      if (!url.startsWith('http://') || isLoopback(new URL(url).hostname)) continue
      const message = `credentials would go in plain text to ${new URL(url).host}: use https://, or add the line "allowPlaintextCredentials: true"`
      problems.push(at(['url', index], message))
    }
  }
  return problems
}

function checkPairs({ upstream, source }: DeclaredUpstream): Problem[] {
  const { network, url } = upstream
  const problems: Problem[] = []
  if (network.cert !== undefined && network.key === undefined)
    problems.push(source.problemAt(['network', 'cert'], 'needs network.key beside it'))
  if (network.key !== undefined && network.cert === undefined)
    problems.push(source.problemAt(['network', 'key'], 'needs network.cert beside it'))
  if (upstream.isPattern) problems.push(...checkPatternUrl({ upstream, source }))
  for (const capability of ['resolve', 'pull'] as const) {
    if (url.some((endpoint) => endpoint.capabilities.includes(capability))) continue
    problems.push(
      source.problemAt(
        ['url'],
        `no endpoint has the capability ${capability}, so nothing could be pulled by ${capability === 'resolve' ? 'tag' : 'digest'}`,
      ),
    )
  }
  return problems
}

/** A pattern's hosts are dialled under their own names, so its URL says only how. */
function checkPatternUrl({ upstream: { name, url }, source }: DeclaredUpstream): Problem[] {
  const isName = url.length === 1 && new URL(url[0]?.url ?? '').hostname === name
  return isName
    ? []
    : [
        source.problemAt(
          ['url'],
          `must name the pattern itself, since each host is dialled under its own name: write url: https://${name}`,
        ),
      ]
}
