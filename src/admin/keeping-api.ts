/** `/api`: what is held, pinned, purged and swept. Values in, values out; what to do is the desk's. */
import type { HttpBindings } from '@hono/node-server'
import { Hono, type Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { z } from 'zod'
import { codeOf, GatewayError, type ErrorCode } from '../errors.ts'
import type { OperatorDesk } from '../keeping/operator.ts'

const MAX_BODY_BYTES = 16 * 1024
const MAX_LIMIT = 500
const DEFAULT_LIMIT = 100

const text = z.string().min(1).max(512)
const flag = z.boolean()
const imageQuery = z.strictObject({
  upstream: text.optional(),
  repository: text.optional(),
  after: z.string().max(1024).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT),
})
const pinQuery = z.strictObject({ upstream: text.optional() })
const pin = z.strictObject({ upstream: text, pattern: text })
const purge = z
  .strictObject({
    upstream: text,
    repository: text.optional(),
    tag: text.optional(),
    digest: text.optional(),
    after: z.string().max(1024).optional(),
    dry: flag.default(true),
  })
  .refine(({ tag, digest }) => tag === undefined || digest === undefined, {
    error: 'takes a tag or a digest, not both',
  })
  .refine(({ repository, tag, digest }) => repository !== undefined || (tag ?? digest) === undefined, {
    error: 'a tag or digest needs its repository',
  })
const sweep = z.strictObject({ upstream: text, dry: flag.default(true) })

const STATUSES: Readonly<Partial<Record<ErrorCode, 400 | 404 | 503>>> = {
  BAD_REQUEST: 400,
  NAME_INVALID: 400,
  ROUTE_UNKNOWN: 404,
  MANIFEST_UNKNOWN: 404,
  OVERLOADED: 503,
}

/** Deletes are dry unless the body says `"dry": false`. Errors are `{ error, code }`. */
export function createKeepingApi(desk: OperatorDesk): Hono<{ Bindings: HttpBindings }> {
  const api = new Hono<{ Bindings: HttpBindings }>()
  // A form or script of a web page cannot send this type without being asked first (CORS).
  api.on(['POST', 'DELETE'], '*', async (c, next) => {
    if (/^application\/json\b/i.test(c.req.header('content-type') ?? '')) return next()
    return c.json({ error: 'the body must be application/json', code: 'BAD_REQUEST' }, 415)
  })
  api.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      onError: (c) => c.json({ error: `the body is over ${MAX_BODY_BYTES} bytes`, code: 'BAD_REQUEST' }, 413),
    }),
  )
  api.get('/upstreams', async (c) => c.json({ upstreams: await desk.upstreams() }))
  api.get('/images', async (c) => c.json(await desk.images(parse(imageQuery, c.req.query()))))
  api.get('/pins', async (c) => c.json({ pins: await desk.pins(parse(pinQuery, c.req.query()).upstream) }))
  api.post('/pins', async (c) => {
    const { upstream, pattern } = await parseBody(pin, c)
    return c.json({ changed: await desk.addPin(upstream, pattern) })
  })
  api.delete('/pins', async (c) => {
    const { upstream, pattern } = await parseBody(pin, c)
    return c.json({ changed: await desk.removePin(upstream, pattern) })
  })
  api.post('/purge', async (c) => {
    const { dry: isDry, ...selector } = await parseBody(purge, c)
    return c.json(await desk.purge({ ...selector, isDry }))
  })
  api.post('/sweep', async (c) => {
    const { dry: isDry, upstream } = await parseBody(sweep, c)
    return c.json(await desk.sweep({ upstream, isDry }))
  })
  api.onError((error, c) => {
    const code = codeOf(error)
    const status = code === undefined ? undefined : STATUSES[code]
    if (status !== undefined) return c.json({ error: error.message, code }, status)
    return c.json({ error: code === undefined ? 'internal error' : error.message, code: code ?? 'INTERNAL' }, 500)
  })
  return api
}

async function parseBody<T>(schema: z.ZodType<T>, c: Context): Promise<T> {
  const body: unknown = await c.req.json().catch(() => {
    throw new GatewayError('BAD_REQUEST', 'the body is no JSON')
  })
  return parse(schema, body)
}

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(
    ({ path, message }) => `${path.join('.')}${path.length > 0 ? ': ' : ''}${message}`,
  )
  throw new GatewayError('BAD_REQUEST', problems.join('; '))
}
