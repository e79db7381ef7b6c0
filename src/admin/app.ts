/** The admin listener: is it alive, is it ready, what are its numbers. Knows the gateway only through its options. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { HttpBindings } from '@hono/node-server'
import { isIP } from 'node:net'
import { Hono, type Context, type Next } from 'hono'
import type { OperatorDesk } from '../keeping/operator.ts'
import { createKeepingApi } from './keeping-api.ts'

export interface AdminAppOptions {
  /** Required for everything but `/livez` and `/readyz`; undefined: no token, which is for loopback alone. */
  readonly token: string | undefined
  /** Why requests should not come here now, such as `draining`; undefined when they may. No upstream is asked. */
  readonly notReady: () => string | undefined
  /** The metrics in Prometheus text form. */
  readonly metrics: () => Promise<string>
  /** What `/api` is answered from; undefined: there is no such API. */
  readonly desk?: OperatorDesk | undefined
}

export type AdminApp = Hono<{ Bindings: HttpBindings }>

// prom-client's own content type of the text format.
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** `/livez` has no dependency: a dead upstream or disk must not make an orchestrator restart every replica. */
export function createAdminApp(options: AdminAppOptions): AdminApp {
  const app: AdminApp = new Hono()
  app.use(noStore)
  app.get('/livez', (c) => c.json({ status: 'alive' }))
  app.get('/readyz', (c) => {
    const reason = options.notReady()
    return reason === undefined ? c.json({ status: 'ready' }) : c.json({ status: 'not ready', reason }, 503)
  })
  app.use(bearerToken(options.token))
  app.get('/metrics', async (c) => c.body(await options.metrics(), 200, { 'content-type': METRICS_TYPE }))
  if (options.desk !== undefined) {
    if (options.token === undefined) app.use('/api/*', refuseForeignHosts)
    app.route('/api', createKeepingApi(options.desk))
  }
  app.notFound((c) => c.json({ error: 'not found' }, 404))
  app.onError((_error, c) => c.json({ error: 'internal error' }, 500))
  return app
}

async function noStore(c: Context, next: Next): Promise<void> {
  await next()
  c.header('cache-control', 'no-store')
  c.header('x-content-type-options', 'nosniff')
}

/** Without a token a web page could reach us under a name of its own that it points at loopback (DNS rebinding). */
async function refuseForeignHosts(c: Context, next: Next): Promise<Response | void> {
  const host = (c.req.header('host') ?? '').replace(/:\d+$/, '')
  if (host === 'localhost' || isIP(host.replace(/^\[|\]$/g, '')) !== 0) return next()
  return c.json({ error: 'without admin.token this is answered at localhost or an address only' }, 403)
}

/** Lets only requests with the token on. Compares hashes, so that neither content nor length shows in the time it takes. */
function bearerToken(token: string | undefined) {
  const expected = token === undefined ? undefined : hashOf(token)
  return async function requireToken(c: Context, next: Next): Promise<Response | void> {
    if (expected === undefined) return next()
    const given = /^Bearer +(\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1] ?? ''
    if (timingSafeEqual(hashOf(given), expected)) return next()
    return c.json({ error: 'a bearer token is required' }, 401, { 'www-authenticate': 'Bearer realm="entrepot admin"' })
  }
}

function hashOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
