/** The client of a request: its address, what it says who it is, and the certificate its connection showed. */
import type { IncomingMessage } from 'node:http'
import { TLSSocket } from 'node:tls'
import type { Caller, CallerCertificate } from '../access/client-auth.ts'
import { clientAddress, type IsTrustedProxy } from './access-log.ts'

/** Reads callers; a certificate is taken apart once a connection. */
export class Callers {
  readonly #isTrustedProxy: IsTrustedProxy
  readonly #certificates = new WeakMap<TLSSocket, CallerCertificate | 'none'>()

  constructor(isTrustedProxy: IsTrustedProxy) {
    this.#isTrustedProxy = isTrustedProxy
  }

  of(incoming: IncomingMessage): Caller {
    const { socket, headers } = incoming
    return {
      address: clientAddress(incoming, this.#isTrustedProxy),
      authorization: headers.authorization,
      certificate: socket instanceof TLSSocket ? this.#certificateOf(socket) : undefined,
    }
  }

  #certificateOf(socket: TLSSocket): CallerCertificate | undefined {
    const held = this.#certificates.get(socket) ?? readCertificate(socket)
    this.#certificates.set(socket, held)
    return held === 'none' ? undefined : held
  }
}

/** Two things must hold: there is a certificate, and Node found it good. A resumed session is asked both again. */
function readCertificate(socket: TLSSocket): CallerCertificate | 'none' {
  const { subject, subjectaltname } = socket.getPeerCertificate()
  // Without a certificate Node gives an empty object, whatever its type says.
  if ((subject as unknown) === undefined) return 'none'
  if (!socket.authorized) return { isValid: false, reason: reasonOf(socket.authorizationError) }
  // A list where the subject has several, whatever the type says.
  const commonNames = [(subject as { readonly CN?: string | readonly string[] }).CN ?? []].flat()
  const names = [...commonNames, ...alternativeNames(subjectaltname ?? '')]
  return names.length > 0 ? { isValid: true, names } : { isValid: false, reason: 'it names nobody' }
}

function reasonOf(error: unknown): string {
  if (error instanceof Error) return 'code' in error ? String(error.code) : error.message
  return typeof error === 'string' ? error : 'not signed by it'
}

/** Values of `DNS:a, URI:spiffe://b/c, email:d, IP Address:e`; Node writes one that could be misread as a JSON string. */
function alternativeNames(text: string): string[] {
  return [...text.matchAll(/(?:^|, )(?:DNS|URI|email|IP Address):("(?:[^"\\]|\\.)*"|[^,]*)/g)].flatMap(([, value]) => {
    if (value?.startsWith('"') !== true) return value === undefined || value === '' ? [] : [value]
    const unquoted = unquote(value)
    return unquoted === undefined ? [] : [unquoted]
  })
}

function unquote(text: string): string | undefined {
  try {
    const parsed: unknown = JSON.parse(text)
    return typeof parsed === 'string' ? parsed : undefined
  } catch {
    return undefined
  }
}
