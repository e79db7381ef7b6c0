/**
 * Whether a token server named by a challenge may be asked at all. A challenge is only a claim: believing it sends the
 * configured password wherever a broken registry or a network attacker wants it (CVE-2026-33540). Pure.
 */
import { isIP } from 'node:net'

export type RealmVerdict =
  | { readonly trusted: true; readonly url: URL }
  | { readonly trusted: false; readonly reason: string }

const MAX_REALM_LENGTH = 2_048

/** Registries whose token server has another name; both operated by the same owner. */
const KNOWN_PAIRS: Readonly<Record<string, readonly string[]>> = {
  'registry-1.docker.io': ['auth.docker.io'],
  'index.docker.io': ['auth.docker.io'],
  'docker.io': ['auth.docker.io'],
  'mirror.gcr.io': ['mirror.gcr.io', 'gcr.io'],
  'registry.gitlab.com': ['gitlab.com'],
  'nvcr.io': ['authn.nvidia.com'],
  'registry.redhat.io': ['registry.redhat.io', 'sso.redhat.com'],
}

/** Names under which strangers live side by side: a shared ending proves nothing there. */
const SHARED_SUFFIXES: readonly string[] = `
  amazonaws.com cloudfront.net elasticbeanstalk.com on.aws azurecr.io azurewebsites.net azure.com
  windows.net azureedge.net cloudapp.net trafficmanager.net azurefd.net pkg.dev run.app appspot.com
  web.app firebaseapp.com googleusercontent.com googleapis.com github.io gitlab.io herokuapp.com
  netlify.app vercel.app now.sh fly.dev onrender.com render.com workers.dev pages.dev r2.dev
  trycloudflare.com ngrok.io ngrok.app ngrok-free.app nip.io sslip.io digitaloceanspaces.com
  ondigitalocean.app oraclecloud.com ocir.io jfrog.io myhuaweicloud.com aliyuncs.com appdomain.cloud
  icr.io scw.cloud readthedocs.io duckdns.org dyndns.org ddns.net no-ip.org blogspot.com wordpress.com
  surge.sh deno.dev repl.co replit.dev gitpod.io
`
  .trim()
  .split(/\s+/)

/** Second labels under which country registries sell names (`co.uk`, `com.au`). */
const COUNTRY_SECOND_LEVEL = /^(?:ac|co|com|edu|go|gob|gov|gr|id|info|ltd|me|mil|ne|net|nom|or|org|plc|sch)$/

/**
 * Judges `realm` for a challenge that `endpoint` sent. In this order: listed by the operator; a known pair; the
 * endpoint's own host and port; the same registrable domain, https on both sides.
 *
 * The last rule works without the public suffix list: it knows the common shared suffixes and country second levels and
 * may still believe a neighbour under one that it does not know. An explicit `realms` entry is the better way.
 */
export function judgeRealm(realm: string, endpoint: URL, listed: readonly string[]): RealmVerdict {
  const url = parseRealm(realm)
  if (typeof url === 'string') return { trusted: false, reason: url }
  const isListed = listed.some((entry) => matchesEntry(url, entry))
  if (url.protocol === 'http:' && endpoint.protocol !== 'http:') return refuse('it is plain http')
  if (isListed) return { trusted: true, url }
  if (effectiveHost(url) === effectiveHost(endpoint)) return { trusted: true, url }
  if (url.protocol === 'http:') return refuse('plain http is taken only from the endpoint itself or a listed realm')
  if (endpoint.protocol !== 'https:') return refuse('the endpoint is plain http and another host is not listed')
  if (url.port === '' && knownRealmHosts(endpoint).includes(url.hostname)) return { trusted: true, url }
  const domain = registrableDomain(endpoint.hostname)
  if (domain !== undefined && isWithin(url.hostname, domain)) return { trusted: true, url }
  return refuse(`${url.host} is neither listed under realms nor known to belong to ${endpoint.host}`)
}

/** The URL, or why the text is none that we would call. Only what cannot be read in two ways passes. */
function parseRealm(realm: string): URL | string {
  if (realm.length > MAX_REALM_LENGTH) return 'it is too long'
  if (!/^https?:\/\/[^/]/i.test(realm)) return 'it is not an absolute http(s) URL'
  if (/[^\x21-\x7e]|[\\"<>^`{|}]/.test(realm)) return 'it holds characters no URL may hold'
  if (!URL.canParse(realm)) return 'it is not a URL'
  const url = new URL(realm)
  if (url.username !== '' || url.password !== '' || /^https?:\/\/[^/?#]*@/i.test(realm))
    return 'it holds user information'
  if (url.hostname === '' || url.hostname.endsWith('.') || url.hostname.includes('%')) return 'its host is malformed'
  if (realm.includes('#')) return 'it holds a fragment'
  return url
}

function refuse(reason: string): RealmVerdict {
  return { trusted: false, reason }
}

/** An entry is `host`, `host:port`, or a URL whose origin must be equal and whose path must lead. */
function matchesEntry(url: URL, entry: string): boolean {
  if (!entry.includes('://')) {
    const wanted = URL.canParse(`https://${entry}`) ? new URL(`https://${entry}`) : undefined
    if (wanted === undefined) return false
    const port = /:\d+$/.test(entry) ? effectivePort(wanted) : url.protocol === 'https:' ? '443' : '80'
    return url.hostname === wanted.hostname && effectivePort(url) === port
  }
  if (!URL.canParse(entry)) return false
  const wanted = new URL(entry)
  const folder = wanted.pathname.endsWith('/') ? wanted.pathname : `${wanted.pathname}/`
  return url.origin === wanted.origin && (url.pathname === wanted.pathname || url.pathname.startsWith(folder))
}

function knownRealmHosts(endpoint: URL): readonly string[] {
  return Object.hasOwn(KNOWN_PAIRS, endpoint.hostname) ? (KNOWN_PAIRS[endpoint.hostname] ?? []) : []
}

function effectivePort(url: URL): string {
  return url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port
}

function effectiveHost(url: URL): string {
  return `${url.hostname}:${effectivePort(url)}`
}

function isWithin(hostname: string, domain: string): boolean {
  return hostname === domain || hostname.endsWith(`.${domain}`)
}

/** The part of a name somebody registered; undefined for addresses, single labels and names under a shared suffix. */
export function registrableDomain(hostname: string): string | undefined {
  if (isIP(hostname.replace(/^\[|\]$/g, '')) !== 0) return undefined
  if (SHARED_SUFFIXES.some((suffix) => isWithin(hostname, suffix))) return undefined
  const labels = hostname.split('.')
  const [second, top] = labels.slice(-2)
  if (second === undefined || top === undefined || labels.includes('')) return undefined
  const isCountrySecondLevel = top.length === 2 && COUNTRY_SECOND_LEVEL.test(second)
  const taken = isCountrySecondLevel ? 3 : 2
  return labels.length < taken ? undefined : labels.slice(-taken).join('.')
}
