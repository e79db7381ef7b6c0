/**
 * The one place that decides whether a request may go on: who is it, may they use this upstream, may this repository be
 * pulled. It is asked with the parsed request, the same values the handlers get, before anything is looked up.
 */
import { GatewayError } from '../errors.ts'
import type { Repository } from '../oci/repository.ts'
import type { Caller, ClientAuth, Principal } from './client-auth.ts'
import { globMatcher } from './globs.ts'
import { networkMatcher, type NetworkMatcher } from './networks.ts'
import { RepositoryRules } from './rules.ts'

/** What an upstream's file says of who may pull what. */
export interface UpstreamDoorOptions {
  readonly allow?: readonly string[]
  readonly deny?: readonly string[]
  readonly clients?: ClientRules | undefined
  /** What the file is called, for messages that clients read. */
  readonly file: string
}

/** Undefined is everybody who came in. Users and certificates are two ways of being named; networks hold beside them. */
export interface ClientRules {
  readonly users?: readonly string[] | undefined
  /** Globs for the names in a client certificate. */
  readonly certificates?: readonly string[] | undefined
  readonly networks?: readonly string[] | undefined
}

export interface DoorOptions {
  /** Undefined where the listener lets everybody in. */
  readonly auth?: ClientAuth | undefined
  /** By the name in the file, a pattern's too. An upstream that is not here may not be used. */
  readonly upstreams: ReadonlyMap<string, UpstreamDoorOptions>
}

/** What a request is for. `name` is the upstream, `declared` the entry it is or came from. */
export interface Wanted {
  readonly name: string
  readonly declared: string
  /** Undefined for a catalog. */
  readonly repository: Repository | undefined
}

interface UpstreamDoor {
  readonly rules: RepositoryRules
  readonly file: string
  readonly users: ReadonlySet<string> | undefined
  readonly isCertificate: ((name: string) => boolean) | undefined
  readonly isNetwork: NetworkMatcher | undefined
}

export class Door {
  readonly #auth: ClientAuth | undefined
  readonly #upstreams: ReadonlyMap<string, UpstreamDoor>
  /** Whether an answer depends on who asks, so that no cache in between may give it to another. */
  readonly asksWho: boolean

  constructor({ auth, upstreams }: DoorOptions) {
    this.#auth = auth
    this.#upstreams = new Map([...upstreams].map(([name, options]) => [name, openDoor(options)]))
    this.asksWho = auth !== undefined || [...upstreams.values()].some(({ clients }) => clients !== undefined)
  }

  /** Who is calling. Rejects as `ClientAuth.admit` does. */
  async admit(caller: Caller, signal: AbortSignal): Promise<Principal> {
    return this.#auth?.admit(caller, signal) ?? { address: caller.address, user: undefined, certificateNames: [] }
  }

  /**
   * Throws where the request may not go on: CLIENT_DENIED for the client, UNAUTHENTICATED where it could still say who it
   * is, DENIED_BY_RULE for the repository. Without a principal (`asksWho` is false) the repository alone is looked at.
   */
  check(principal: Principal | undefined, { name, declared, repository }: Wanted): void {
    const door = this.#upstreams.get(declared)
    if (door === undefined) throw new GatewayError('DENIED_BY_RULE', `${name} is not declared`)
    if (principal !== undefined) {
      const refusal = this.#refusalOf(principal, name, door)
      if (refusal !== undefined) throw refusal
    }
    const key = repository === undefined ? undefined : door.rules.refusalOf(repository)
    if (key !== undefined) throw new GatewayError('DENIED_BY_RULE', `${name}/${repository} (${key} in ${door.file})`)
  }

  /** Whether the client may use an upstream at all, for lists. */
  mayUse(principal: Principal | undefined, declared: string): boolean {
    const door = this.#upstreams.get(declared)
    if (door === undefined) return false
    return principal === undefined || this.#refusalOf(principal, declared, door) === undefined
  }

  /** Whether a repository may be pulled by those who may use its upstream, for lists. */
  allows(declared: string, repository: Repository): boolean {
    return this.#upstreams.get(declared)?.rules.allows(repository) ?? false
  }

  #refusalOf(principal: Principal, name: string, door: UpstreamDoor): GatewayError | undefined {
    const { address, user, certificateNames } = principal
    const denied = (who: string, key: string): GatewayError =>
      new GatewayError('CLIENT_DENIED', `${who} may not pull from ${name} here (clients.${key} in ${door.file})`)
    if (door.isNetwork?.(address) === false) return denied(`clients from ${address}`, 'networks')
    const { users, isCertificate } = door
    if (users === undefined && isCertificate === undefined) return undefined
    if (user !== undefined && users?.has(user) === true) return undefined
    if (isCertificate !== undefined && certificateNames.some(isCertificate)) return undefined
    const key = users === undefined ? 'certificates' : 'users'
    if (user !== undefined) return denied(`user ${user}`, key)
    if (users !== undefined && this.#auth?.asksPassword === true) {
      return new GatewayError('UNAUTHENTICATED', `${name} is for some users (clients.users in ${door.file})`)
    }
    const [certificate] = certificateNames
    return denied(certificate === undefined ? 'a client without a name' : `certificate ${certificate}`, key)
  }
}

function openDoor({ allow, deny, clients, file }: UpstreamDoorOptions): UpstreamDoor {
  return {
    rules: new RepositoryRules({ ...(allow && { allow }), ...(deny && { deny }) }),
    file,
    users: clients?.users && new Set(clients.users),
    isCertificate: clients?.certificates && globMatcher(clients.certificates),
    isNetwork: clients?.networks && networkMatcher(clients.networks),
  }
}
