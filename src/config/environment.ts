/** What the standard environment says beside the configuration. No key of ours has a twin here. */

export interface EnvironmentProxy {
  readonly httpProxy?: string
  readonly httpsProxy?: string
  readonly noProxy?: string
}

/** `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` in either case; the lower-case one wins, as everywhere. */
export function readEnvironmentProxy(
  env: Readonly<Record<string, string | undefined>> = process.env,
): EnvironmentProxy {
  const read = (name: string): string | undefined => env[name.toLowerCase()] ?? env[name]
  const [httpProxy, httpsProxy, noProxy] = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'].map(read)
  return {
    ...(httpProxy ? { httpProxy } : {}),
    ...(httpsProxy ? { httpsProxy } : {}),
    ...(noProxy ? { noProxy } : {}),
  }
}
