/** Who is calling, and may they in at all: password, client certificate and network, all or any of those configured. */
import { GatewayError } from '../errors.ts'
import type { NetworkMatcher } from './networks.ts'
import type { Passwords } from './passwords.ts'

/** A client as its connection and request show it; nothing of it is believed yet but the address. */
export interface Caller {
  /** Of the peer, or as trusted proxies tell it. */
  readonly address: string
  readonly authorization: string | undefined
  /** Undefined when none was shown. */
  readonly certificate: CallerCertificate | undefined
}

/** A certificate that the listener's authority signed, by its names, the subject's first; or why it counts for nothing. */
export type CallerCertificate =
  | { readonly isValid: true; readonly names: readonly string[] }
  | { readonly isValid: false; readonly reason: string }

/** A client once authenticated: what is set here was proven. */
export interface Principal {
  readonly address: string
  /** Of the htpasswd file. */
  readonly user: string | undefined
  /** Names in the client certificate; empty without one. */
  readonly certificateNames: readonly string[]
}

export interface ClientAuthOptions {
  readonly passwords?: Pick<Passwords, 'userOf'> | undefined
  readonly networks?: NetworkMatcher | undefined
  /** Whether the listener asks for client certificates. */
  readonly hasCertificates: boolean
  readonly require: 'all' | 'any'
  /** What the configuration file is called, for messages that clients read. */
  readonly file: string
}

export class ClientAuth {
  readonly #options: ClientAuthOptions

  constructor(options: ClientAuthOptions) {
    this.#options = options
  }

  /** Whether a client without a password can be told to come back with one. */
  get asksPassword(): boolean {
    return this.#options.passwords !== undefined
  }

  /**
   * Admits a caller. Rejects with UNAUTHENTICATED where a password would help, with CLIENT_DENIED where none would, with
   * LOGIN_THROTTLED or OVERLOADED.
   */
  async admit(caller: Caller, signal: AbortSignal): Promise<Principal> {
    return this.#options.require === 'all' ? this.#admitByAll(caller, signal) : this.#admitByAny(caller, signal)
  }

  /** The cheap ones first: who comes from the wrong network costs no password check. */
  async #admitByAll(caller: Caller, signal: AbortSignal): Promise<Principal> {
    const { networks, hasCertificates } = this.#options
    if (networks?.(caller.address) === false) throw this.#wrongNetwork(caller)
    if (hasCertificates && caller.certificate?.isValid !== true) throw noCertificate(caller)
    return { ...this.#unnamed(caller), user: await this.#userOf(caller, signal) }
  }

  async #admitByAny(caller: Caller, signal: AbortSignal): Promise<Principal> {
    const { networks, hasCertificates, passwords } = this.#options
    const unnamed = this.#unnamed(caller)
    const isIn = networks?.(caller.address) === true || (hasCertificates && caller.certificate?.isValid === true)
    // A password is no more needed then, but it tells which user this is, where an upstream is for some alone.
    if (isIn && caller.authorization === undefined) return unnamed
    if (passwords !== undefined) {
      const user = this.#userOf(caller, signal)
      return { ...unnamed, user: await (isIn ? user.catch(() => undefined) : user) }
    }
    if (isIn) return unnamed
    throw networks === undefined ? noCertificate(caller) : this.#wrongNetwork(caller)
  }

  async #userOf({ authorization, address }: Caller, signal: AbortSignal): Promise<string | undefined> {
    const { passwords } = this.#options
    if (passwords === undefined) return undefined
    if (authorization === undefined) throw new GatewayError('UNAUTHENTICATED', 'no user and password were given')
    const user = await passwords.userOf({ authorization, address, signal })
    if (user === undefined) throw new GatewayError('UNAUTHENTICATED', 'wrong user or password')
    return user
  }

  #unnamed({ address, certificate }: Caller): Principal {
    const isProven = this.#options.hasCertificates && certificate?.isValid === true
    return { address, user: undefined, certificateNames: isProven ? certificate.names : [] }
  }

  #wrongNetwork({ address }: Caller): GatewayError {
    const text = `clients from ${address} may not pull here (clients.networks in ${this.#options.file})`
    return new GatewayError('CLIENT_DENIED', text)
  }
}

function noCertificate({ certificate }: Caller): GatewayError {
  const what = certificate?.isValid === false ? `this one is not good: ${certificate.reason}` : 'none was shown'
  const text = `a client certificate of this gateway's authority is needed and ${what} (tls.clientCa of the listener)`
  return new GatewayError('CLIENT_DENIED', text)
}
