/** Whether what the files say of clients can be kept, and what should be thought of before it is relied on. */
import { readFileSync, statSync } from 'node:fs'
import { MAX_HTPASSWD_BYTES, parseHtpasswd, type Htpasswd } from '../access/htpasswd.ts'
import type { Config, ListenerConfig } from './config.ts'
import type { DeclaredUpstream } from './declared.ts'
import { isLoopback } from './loopback.ts'
import { nearestWord } from './nearest.ts'
import { formatPlace, type Problem, type Source } from './source.ts'

type Clients = Config['clients']

export interface ClientsCheckOptions {
  readonly main: Source
  readonly clients: Clients
  readonly listeners: readonly ListenerConfig[]
  readonly trustedProxies: readonly string[]
  readonly declared: readonly DeclaredUpstream[]
}

export interface ClientsCheck {
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
}

const HUB = 'docker.io'

/** Whether every client has shown who it is, by password or certificate, before it reaches any upstream. */
export function identifiesClients(clients: Clients, listeners: readonly ListenerConfig[]): boolean {
  return listeners.every(({ tls }) => {
    const methods = [clients?.htpasswd, tls?.clientCa].filter((method) => method !== undefined)
    // A network says where somebody is and not who; where any one will do it is a way past the others.
    return methods.length > 0 && (clients?.require !== 'any' || clients.networks === undefined)
  })
}

export function checkClients(options: ClientsCheckOptions): ClientsCheck {
  const { main, clients, listeners, declared } = options
  const hasCertificates = listeners.some(({ tls }) => tls?.clientCa !== undefined)
  const found = readHtpasswd(clients?.htpasswd)
  const problems = found.problems.map(({ line, message }) =>
    main.problemAt(['clients', 'htpasswd'], line === 0 ? message : `line ${line} of that file: ${message}`),
  )
  if (clients !== undefined && clients.htpasswd === undefined && clients.networks === undefined) {
    const without = listeners.some(({ tls }) => tls?.clientCa === undefined)
    const message = 'names nothing that clients must show: write htpasswd or networks, or remove it'
    if (without) problems.push(main.problemAt(['clients'], message))
  }
  const warnings = clients?.htpasswd === undefined ? [] : warningsOf(options)
  for (const { upstream, source } of declared) {
    const { users, certificates } = upstream.clients ?? {}
    if (users !== undefined && clients?.htpasswd === undefined) {
      const message = 'names users, and entrepot.yaml has no clients.htpasswd that says who they are: add it'
      problems.push(source.problemAt(['clients', 'users'], message))
    }
    if (certificates !== undefined && !hasCertificates) {
      const message = 'names certificates, and no listener has tls.clientCa that says whose count: add it'
      problems.push(source.problemAt(['clients', 'certificates'], message))
    }
    for (const [index, user] of found.problems.length > 0 || found.users.size === 0 ? [] : (users ?? []).entries()) {
      if (found.users.has(user)) continue
      const nearest = nearestWord(user, [...found.users.keys()])
      const hint = nearest === undefined ? '' : `; did you mean ${nearest}?`
      const place = formatPlace(source.placeOf(['clients', 'users', index]))
      warnings.push(`${place} clients.users: the htpasswd file has no user ${user}${hint}`)
    }
  }
  return { problems, warnings }
}

/** Line 0 stands for the file as a whole. */
function readHtpasswd(path: string | undefined): Htpasswd {
  if (path === undefined) return { users: new Map(), problems: [] }
  try {
    if (statSync(path).size > MAX_HTPASSWD_BYTES) throw new Error(`larger than ${MAX_HTPASSWD_BYTES} bytes`)
    return parseHtpasswd(readFileSync(path, 'utf8'))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { users: new Map(), problems: [{ line: 0, message: `cannot be read: ${reason}` }] }
  }
}

function warningsOf({ main, listeners, trustedProxies, declared }: ClientsCheckOptions): string[] {
  const place = `${formatPlace(main.placeOf(['clients', 'htpasswd']))} clients.htpasswd`
  const hubPort = declared.find(({ upstream }) => upstream.name === HUB)?.upstream.routes.port
  const warnings: string[] = []
  for (const { address, default: name, tls } of listeners) {
    const shown = `${address.host ?? ''}:${address.port}`
    if (name === HUB || address.port === hubPort) {
      warnings.push(
        `${place}: the listener ${shown} can be a mirror of Docker Hub, and Docker sends the Docker Hub password of its user to a mirror that asks for one: let in mirrors by networks or certificates, or pull by full names from a listener without that default`,
      )
    }
    if (tls === undefined && trustedProxies.length === 0 && !isLoopback(address.host ?? '')) {
      warnings.push(`${place}: passwords reach the listener ${shown} in plain text: give it tls`)
    }
  }
  return warnings
}
