/** Which certificate a TLS connection gets: one per host name, by SNI, and a first one for everybody else. */
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import { GatewayError } from '../errors.ts'
import { parseAuthority } from '../routing/authority.ts'

/** PEM texts, read by whoever watches the files. */
export interface Certificate {
  /** Chain, own certificate first. */
  readonly cert: string
  readonly key: string
}

export interface NamedCertificate extends Certificate {
  /** Host names it is for; `*.example.com` stands for one label. */
  readonly hosts: readonly string[]
}

export interface TlsOptions extends Certificate {
  readonly named?: readonly NamedCertificate[]
  /** PEM: clients must show a certificate that one of these signed. */
  readonly clientCa?: string | undefined
  /**
   * Lets clients without a good certificate finish the handshake, because whoever answers them asks for it and can say
   * what is missing. Default false: the handshake fails.
   */
  readonly admitsUncertified?: boolean
}

interface Choice {
  readonly first: SecureContextOptions
  readonly byHost: ReadonlyMap<string, SecureContext>
}

export class CertificateChoice {
  readonly #place: string
  #choice: Choice
  readonly #clientCa: string | undefined
  readonly #rejectUnauthorized: boolean

  /** Throws CONFIG_INVALID, naming `place`, when a certificate and its key cannot be used. */
  constructor(tls: TlsOptions, place: string) {
    this.#place = place
    this.#clientCa = tls.clientCa
    this.#rejectUnauthorized = tls.admitsUncertified !== true
    this.#choice = this.#read(tls)
  }

  /** Options for `https.createServer`. */
  get serverOptions() {
    return {
      ...this.#choice.first,
      // A throw in here would end the process (CVE-2026-21637).
      SNICallback: (name: string, done: (error: Error | null, context?: SecureContext) => void): void => {
        done(null, this.#contextFor(name))
      },
      ...(this.#clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: this.#rejectUnauthorized }),
      ALPNProtocols: ['http/1.1'],
    }
  }

  /** Takes new certificates; gives the options of the first one. Keeps the old when one cannot be used. */
  replace(tls: TlsOptions): SecureContextOptions {
    this.#choice = this.#read(tls)
    return this.#choice.first
  }

  #contextFor(name: string): SecureContext | undefined {
    const host = parseAuthority(name)?.name
    if (host === undefined) return undefined
    const { byHost } = this.#choice
    return byHost.get(host) ?? byHost.get(`*${host.slice(Math.max(0, host.indexOf('.')))}`)
  }

  #read(tls: TlsOptions): Choice {
    const clientCa = tls.clientCa === undefined ? {} : { ca: tls.clientCa }
    const optionsOf = ({ cert, key }: Certificate): SecureContextOptions => ({
      cert,
      key,
      minVersion: 'TLSv1.2',
      ...clientCa,
    })
    this.#contextOf(optionsOf(tls), 'the certificate')
    const byHost = new Map<string, SecureContext>()
    for (const named of tls.named ?? []) {
      const context = this.#contextOf(optionsOf(named), `the certificate for ${named.hosts.join(', ')}`)
      for (const host of named.hosts) byHost.set(host.toLowerCase(), context)
    }
    return { first: optionsOf(tls), byHost }
  }

  #contextOf(options: SecureContextOptions, what: string): SecureContext {
    try {
      return createSecureContext(options)
    } catch (cause) {
      const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : 'not readable'
      throw new GatewayError(
        'CONFIG_INVALID',
        `${this.#place}: loading ${what} and its key: ${reason}; both are PEM, and the key is the certificate's`,
        { cause },
      )
    }
  }
}
