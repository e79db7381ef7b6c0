/** Looks at each endpoint the way an operator would: name, address, certificate, login, one manifest. Never throws. */
import { lookup } from 'node:dns/promises'
import { connect as connectTcp, isIP } from 'node:net'
import { connect as connectTls, TLSSocket } from 'node:tls'
import { GatewayError } from '../errors.ts'
import type { Reference } from '../oci/reference.ts'
import type { Repository } from '../oci/repository.ts'
import type { Attempt } from './attempt.ts'
import type { Authorizer } from './authorizer.ts'
import { parseChallenges } from './challenge.ts'
import { withDeadline } from './deadline.ts'
import type { Endpoint, Endpoints } from './endpoints.ts'
import type { UpstreamTimeouts } from './options.ts'
import type { Transport } from './transport.ts'
import { TransportError } from './transport-error.ts'
import type { Upstream } from './upstream.ts'

export interface ProbeStep {
  readonly ok: boolean
  /** What was found, or what went wrong. Never a credential. */
  readonly detail: string
  /** What went wrong as the system, TLS or undici calls it (`ENOTFOUND`); `NO_ANSWER` for silence. Undefined: none of these. */
  readonly code?: string
  readonly ms: number
}

export interface EndpointProbe {
  readonly endpoint: string
  readonly dns: ProbeStep
  readonly connect: ProbeStep
  readonly auth: ProbeStep
}

export interface ProbeReport {
  readonly upstream: string
  readonly endpoints: readonly EndpointProbe[]
  /** The HEAD of the reference, through the endpoints in their order; undefined when none was given. */
  readonly head: ProbeStep | undefined
}

export interface ProbeOptions {
  readonly signal: AbortSignal
  /** Something that should be there, such as `library/alpine` and `latest`. */
  readonly repository?: Repository
  readonly reference?: Reference
}

export interface ProberOptions {
  readonly upstream: Upstream
  readonly endpoints: Endpoints
  readonly transport: Transport
  readonly attempt: Attempt
  readonly authorizer: Authorizer
  readonly timeouts: UpstreamTimeouts
}

const DAY_MS = 86_400_000
/** The code of a step that nobody answered in time. */
const NO_ANSWER = 'NO_ANSWER'
const MAX_CAUSES = 5

export class Prober {
  readonly #options: ProberOptions

  constructor(options: ProberOptions) {
    this.#options = options
  }

  async probe({ signal, repository, reference }: ProbeOptions): Promise<ProbeReport> {
    const { upstream, endpoints } = this.#options
    const probed = await Promise.all(endpoints.all.map((endpoint) => this.#probeEndpoint(endpoint, repository, signal)))
    if (repository === undefined || reference === undefined)
      return { upstream: upstream.name, endpoints: probed, head: undefined }
    const head = await this.#step(signal, async (bounded) => {
      const { digest, size } = await upstream.headManifest(repository, reference, { signal: bounded })
      return `${digest ?? 'no digest header'}, ${size === undefined ? 'no length' : `${size} bytes`}`
    })
    return { upstream: upstream.name, endpoints: probed, head }
  }

  async #probeEndpoint(
    endpoint: Endpoint,
    repository: Repository | undefined,
    signal: AbortSignal,
  ): Promise<EndpointProbe> {
    const { transport } = this.#options
    const proxy = transport.proxyOf(endpoint.url)
    const via = proxy === undefined ? undefined : `by the proxy ${hostOf(proxy)}`
    const dns = await this.#step(signal, async () => via ?? (await addressesOf(endpoint.url)))
    const connect = dns.ok
      ? await this.#step(signal, async (bounded) => via ?? (await this.#connect(endpoint.url, bounded)))
      : skipped
    // Through a proxy nothing was tested yet: the ping tells.
    const auth = connect.ok
      ? await this.#step(signal, (bounded) => this.#login(endpoint, repository, bounded))
      : skipped
    return { endpoint: endpoint.url.host, dns, connect, auth }
  }

  async #step(signal: AbortSignal, look: (bounded: AbortSignal) => Promise<string>): Promise<ProbeStep> {
    const startedAt = performance.now()
    const ms = this.#options.timeouts.headersMs + this.#options.timeouts.connectMs
    const onLate = (): Error => Object.assign(new Error(`no answer within ${ms} ms`), { code: NO_ANSWER })
    const found = await withDeadline({ ms, signal, onLate }, look).then(
      (detail) => ({ ok: true, detail }),
      (error: unknown) => ({ ok: false, detail: reasonOf(error), ...codeOfStep(error) }),
    )
    return { ...found, ms: Math.round(performance.now() - startedAt) }
  }

  /** A connection of its own, since a pool does not show whose certificate it accepted. */
  async #connect(url: URL, signal: AbortSignal): Promise<string> {
    const host = url.hostname.replace(/^\[|\]$/g, '')
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const { transport } = this.#options
    const target = { host, port: portOf(url), lookup: transport.lookupFor(url) }
    const isTls = url.protocol === 'https:'
    const tls = { secureContext: transport.secureContext, servername: isIP(host) === 0 ? host : '' }
    const socket = isTls ? connectTls({ ...target, ...tls, ALPNProtocols: ['http/1.1'] }) : connectTcp(target)
    const onAbort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once('error', reject)
    socket.once(isTls ? 'secureConnect' : 'connect', () => {
      resolve(
        socket instanceof TLSSocket ? certificateOf(socket) : `plain http, ${socket.remoteAddress ?? 'connected'}`,
      )
    })
    return promise.finally(() => {
      signal.removeEventListener('abort', onAbort)
      socket.destroy()
    })
  }

  async #login(endpoint: Endpoint, repository: Repository | undefined, signal: AbortSignal): Promise<string> {
    const { attempt, authorizer } = this.#options
    const { status, headers } = await attempt.ping(endpoint, signal)
    if (status === 200) return 'no login needed for /v2/'
    if (status !== 401) throw new Error(`/v2/ answered ${status}: no registry answers so`)
    const challenges = headers.getAll('www-authenticate')
    const scheme = parseChallenges(challenges).find(({ params }) => params.has('realm') || params.size === 0)?.scheme
    if (repository === undefined) return `asks for ${scheme ?? 'a login of no kind we speak'}`
    const answer = await authorizer.answer({ endpoint, repository, signal }, challenges, undefined)
    if (answer?.isFallback === true)
      throw new Error('the configured credential was refused; public content goes on anonymously')
    if (answer === undefined)
      throw new Error(`asks for ${scheme ?? 'a login of no kind we speak'}, and no credential is configured`)
    if (answer.scheme === 'basic') return 'Basic, a credential is configured'
    const realm = answer.token?.request.realm.host ?? endpoint.url.host
    return `Bearer from ${realm}, token obtained ${answer.credential === undefined ? 'anonymously' : 'with the credential'}`
  }
}

const skipped: ProbeStep = { ok: false, detail: 'not tried', ms: 0 }

async function addressesOf(url: URL): Promise<string> {
  const found = await lookup(url.hostname.replace(/^\[|\]$/g, ''), { all: true })
  return found.map(({ address }) => address).join(', ')
}

function certificateOf(socket: TLSSocket): string {
  const { issuer, valid_to: validTo } = socket.getPeerCertificate()
  const days = Math.floor((Date.parse(validTo) - Date.now()) / DAY_MS)
  const by = [issuer?.O ?? issuer?.CN].flat()[0] ?? 'an unnamed authority'
  return `${socket.getProtocol() ?? 'TLS'}, issued by ${by}, expires in ${days} days`
}

function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port)
  return url.protocol === 'https:' ? 443 : 80
}

function hostOf(proxy: string): string {
  return URL.canParse(proxy) ? new URL(proxy).host : 'as configured'
}

function reasonOf(error: unknown): string {
  if (error instanceof GatewayError) return error.message
  if (error instanceof TransportError) return `${error.kind} (${error.message})`
  if (!(error instanceof Error)) return 'it failed'
  if (!('code' in error) || error.code === NO_ANSWER) return error.message
  const { kind, message } = TransportError.from(error)
  return `${kind} (${message})`
}

/** The innermost code: ours says who failed, what caused it says how. */
export function codeOfStep(error: unknown): { readonly code?: string } {
  const code = innermostCode(error, MAX_CAUSES)
  return code === undefined ? {} : { code }
}

function innermostCode(error: unknown, depth: number): string | undefined {
  if (!(error instanceof Error) || depth === 0) return undefined
  // Several addresses were tried: the first one's failure stands for all.
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error.cause
  return innermostCode(cause, depth - 1) ?? ('code' in error && typeof error.code === 'string' ? error.code : undefined)
}
