/** Puts the parts of one upstream's client together; the only place that knows all of them. */
import { systemClock } from '../async/clock.ts'
import { Attempt } from './attempt.ts'
import { Authorizer } from './authorizer.ts'
import { RateBudgets } from './budget.ts'
import { CredentialBook } from './credentials.ts'
import { Endpoints } from './endpoints.ts'
import { Exchange } from './exchange.ts'
import { DEFAULT_TIMEOUTS, type UpstreamEvent, type UpstreamOptions, type UpstreamTimeouts } from './options.ts'
import { Rejections } from './rejections.ts'
import { scopeKey } from './scope.ts'
import { TokenSource } from './token.ts'
import { Transport } from './transport.ts'

const DEFAULT_CONNECTIONS = 64

export interface Assembly {
  readonly transport: Transport
  readonly endpoints: Endpoints
  readonly authorizer: Authorizer
  readonly attempt: Attempt
  readonly exchange: Exchange
  readonly timeouts: UpstreamTimeouts
}

/** Throws CONFIG_INVALID for a malformed range in `allowPrivate`. */
export function assemble(options: UpstreamOptions): Assembly {
  const { name, clock = systemClock, random = Math.random, order = 'listed', onEvent = ignoreEvent } = options
  const timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts }
  const transport = openTransport(options, timeouts, onEvent)
  // Never a client's header, a cookie or `ns`: this is all that goes out, besides Accept, Range and Authorization.
  const headers = { 'accept-encoding': 'identity', 'user-agent': `entrepot/${options.version ?? '0'}` }
  const endpoints = new Endpoints({ name, endpoints: options.endpoints, order, clock, random, onEvent })
  const authorizer = openAuthorizer(options, { transport, headers, timeouts, onEvent })
  const attempt = new Attempt({ transport, authorizer, budgets: new RateBudgets(clock), headers })
  const exchange = new Exchange({ endpoints, attempt, retryWithinMs: timeouts.headersMs, clock, random })
  return { transport, endpoints, authorizer, attempt, exchange, timeouts }
}

function openTransport(
  options: UpstreamOptions,
  timeouts: UpstreamTimeouts,
  onEvent: (event: UpstreamEvent) => void,
): Transport {
  return new Transport({
    name: options.name,
    endpointOrigins: options.endpoints.map(({ url }) => url.origin),
    areDeclared: options.isPatternHost !== true,
    allowPrivate: options.allowPrivate ?? [],
    proxy: options.proxy ?? {},
    ca: options.ca ?? [],
    clientCertificate: options.clientCertificate,
    connections: options.connections ?? DEFAULT_CONNECTIONS,
    requestsPerSecond: options.requestsPerSecond ?? Number.POSITIVE_INFINITY,
    bytesPerSecond: options.bytesPerSecond ?? Number.POSITIVE_INFINITY,
    timeouts,
    lookup: options.lookup,
    onEvent,
  })
}

interface AuthorizerParts {
  readonly transport: Transport
  readonly headers: Readonly<Record<string, string>>
  readonly timeouts: UpstreamTimeouts
  readonly onEvent: (event: UpstreamEvent) => void
}

function openAuthorizer(
  options: UpstreamOptions,
  { transport, headers, timeouts, onEvent }: AuthorizerParts,
): Authorizer {
  const { clock = systemClock, credentials: rules = [], realms = [], endpoints, name, onSecret } = options
  const tokens = new TokenSource({
    send: (request) => transport.send(request),
    headers: { ...headers, accept: 'application/json' },
    postTokens: options.postTokens ?? false,
    callMs: timeouts.callMs,
    clock,
    onSecret,
    onIssued: ({ realm, scopes }, { expiresAt }) => {
      const expiresInMs = expiresAt - clock.now()
      onEvent({ type: 'token.issued', realm: realm.host, scope: scopeKey(scopes), expiresInMs })
    },
  })
  const rejections = new Rejections({
    clock,
    onBroken: (credential, by, detail) => onEvent({ type: 'credential.rejected', credential, by, detail }),
  })
  const book = new CredentialBook({ rules, server: endpoints[0]?.url.host ?? name, clock, onSecret })
  return new Authorizer({ book, tokens, rejections, realms })
}

function ignoreEvent(): void {
  // Nobody listens.
}
