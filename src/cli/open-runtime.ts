/** The running parts as the commands see them. Imported lazily by `run.ts`, so that `--help` loads none of it. */
import type { Config } from '../config/config.ts'
import { readEnvironmentProxy } from '../config/environment.ts'
import { startGateway } from '../gateway.ts'
import { openFolderDesk } from '../gateway/open-desk.ts'
import { createLog, type Log } from '../telemetry/log.ts'
import { SecretSet } from '../telemetry/redact.ts'
import { openUpstream } from '../upstream/client.ts'
import { upstreamOptionsOf } from '../gateway/upstream-options.ts'
import type { Probes, Runtime } from './runtime.ts'

export function openRuntime(): Runtime {
  return { openLog, startGateway, openFolderDesk, openProbes }
}

function openLog(config: Config): Log {
  const { level, format } = config.log
  return createLog({ level, secrets: secretsOf(config), ...(format === 'auto' ? {} : { pretty: format === 'pretty' }) })
}

/** What must not be logged, even when an upstream repeats it in an error. */
function secretsOf({ admin, upstreams }: Config): SecretSet {
  const secrets = new SecretSet()
  const passwords = upstreams.flatMap(({ auth = [] }) => auth.map(({ password }) => password))
  for (const secret of [admin.token, ...passwords]) if (secret !== undefined) secrets.add(secret.reveal())
  const { httpProxy, httpsProxy } = readEnvironmentProxy()
  for (const proxy of [httpProxy, httpsProxy, ...upstreams.map(({ network }) => network.proxy)]) {
    for (const secret of proxySecretsOf(proxy)) secrets.add(secret)
  }
  return secrets
}

/** The password in a proxy's URL, as written, as meant, and as it is sent. */
function proxySecretsOf(proxy = ''): string[] {
  const url = URL.parse(proxy.includes('://') ? proxy : `http://${proxy}`)
  if (url === null || url.password === '') return []
  const [username, password] = [url.username, url.password].map(decoded)
  return [url.password, password ?? '', Buffer.from(`${username}:${password}`).toString('base64')]
}

/** As it stands when it is no percent-encoding. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function openProbes({ upstreams }: Config, { version }: { readonly version: string }): Probes {
  const surroundings = { version, proxy: readEnvironmentProxy(), onEvent: () => undefined, onSecret: () => undefined }
  const opened = upstreams
    .filter(({ isPattern, offline }) => !isPattern && !offline)
    .map((upstream) => openUpstream(upstreamOptionsOf(upstream, surroundings)))
  return {
    upstreams: opened,
    [Symbol.asyncDispose]: async () => {
      await Promise.allSettled(opened.map((upstream) => upstream.close()))
    },
  }
}
