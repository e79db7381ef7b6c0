/** From the configuration of an upstream to the options of its parts. Reads the PEM files; knows no part's inside. */
import { readFileSync } from 'node:fs'
import type { TagPolicy } from '../cache/freshness.ts'
import type { SchedulePolicy } from '../cache/schedule.ts'
import type { UpstreamConfig } from '../config/config.ts'
import { globMatcher } from '../access/globs.ts'
import type { CredentialRule } from '../upstream/credentials.ts'
import type { ProxyOptions } from '../upstream/egress.ts'
import type { UpstreamEvent, UpstreamOptions } from '../upstream/options.ts'

const MiB = 1024 * 1024

export interface UpstreamSurroundings {
  readonly version: string
  /** Of the environment; an upstream's own proxy stands over its proxies, not over `NO_PROXY`. */
  readonly proxy: ProxyOptions
  readonly onEvent: (event: UpstreamEvent) => void
  /** Told of every secret the upstream's client comes to know, before it is used. */
  readonly onSecret: (secret: string) => void
}

/**
 * Options of the client for one upstream. `host` is the concrete host of a pattern's upstream: it replaces the `*` in
 * the configured URL, and only public addresses are dialled for it unless `network.allowPrivate` says otherwise.
 */
export function upstreamOptionsOf(
  config: UpstreamConfig,
  surroundings: UpstreamSurroundings,
  host?: string,
): UpstreamOptions {
  const { network, limits } = config
  const { cert, key } = network
  return {
    name: host ?? config.name,
    endpoints: config.url.map(({ url, capabilities }) => ({ url: new URL(concreteUrl(url, host)), capabilities })),
    order: config.order,
    credentials: (config.auth ?? []).map(credentialRuleOf),
    realms: network.realms,
    allowPrivate: network.allowPrivate,
    proxy: {
      ...surroundings.proxy,
      ...(network.proxy === undefined ? {} : { httpProxy: network.proxy, httpsProxy: network.proxy }),
    },
    ca: network.ca === undefined ? [] : [readFileSync(network.ca, 'utf8')],
    ...(cert !== undefined && key !== undefined
      ? { clientCertificate: { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') } }
      : {}),
    isPatternHost: host !== undefined,
    connections: limits.connections,
    requestsPerSecond: limits.requestsPerSecond,
    bytesPerSecond: limits.bandwidth,
    version: surroundings.version,
    onEvent: surroundings.onEvent,
    onSecret: surroundings.onSecret,
  }
}

function concreteUrl(url: string, host: string | undefined): string {
  if (host === undefined) return url
  const { protocol, port } = new URL(url.replaceAll('*', 'any'))
  return `${protocol}//${host}${port === '' ? '' : `:${port}`}`
}

function credentialRuleOf(auth: NonNullable<UpstreamConfig['auth']>[number]): CredentialRule {
  const { username, password, helper, repositories } = auth
  const only = repositories === undefined ? {} : { repositories }
  if (helper !== undefined) return { ...only, source: { helper } }
  return {
    ...only,
    source: {
      read: () =>
        Promise.resolve(
          username === undefined || password === undefined
            ? undefined
            : { username: username.reveal(), password: password.reveal() },
        ),
    },
  }
}

/** Registry the bytes of an upstream's folder are of: the host of its first endpoint. */
export function originOf(config: UpstreamConfig, host?: string): string {
  return host ?? new URL(config.url[0]?.url ?? `https://${config.name}`).host
}

/**
 * Whether every client may read all that our identity at the upstream may, so that a manifest of a repository proves its
 * blobs: one identity, and no rule that treats repositories differently.
 */
export function isSharedAccess({ auth = [], allow, deny }: UpstreamConfig): boolean {
  const isOneIdentity = auth.length === 0 || (auth.length === 1 && auth[0]?.repositories === undefined)
  return isOneIdentity && deny.length === 0 && allow.length === 1 && allow[0] === '**'
}

export function tagPolicyOf({ tags }: UpstreamConfig): TagPolicy {
  const matchesTag = globMatcher(tags.immutable)
  return {
    ttlMs: tags.ttl,
    maxWaitMs: tags.maxWait,
    staleForMs: tags.staleFor,
    isImmutable: (_repository, tag) => matchesTag(tag),
    onGone: tags.onGone,
    goneForMs: tags.goneFor,
    deniedForMs: tags.deniedFor,
    recheckMs: tags.recheck,
  }
}

export function schedulePolicyOf({ fill }: UpstreamConfig): SchedulePolicy {
  return {
    connections: fill.connections,
    parallelFromBytes: fill.from,
    segmentBytes: 8 * MiB,
    urgentConnections: Math.max(16, fill.connections),
    nearBytes: 1 * MiB,
  }
}
