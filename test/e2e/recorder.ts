// A forward proxy between a client and the gateway: lets a client that has no way to say it reach any route (a host name
// that DNS does not know, `ns`, an outer prefix), and keeps what was answered. It changes nothing in an answer.

import { createHash } from 'node:crypto'
import { createServer, request as httpRequest } from 'node:http'

/** One exchange as it went over the wire. */
export interface Exchange {
  readonly method: string
  /** Path and query as the gateway got it. */
  readonly target: string
  readonly status: number
  readonly contentType: string | undefined
  readonly digestHeader: string | undefined
  /** Hash of the body the client got; of nothing for HEAD. */
  readonly bodyDigest: string
}

export interface RecorderOptions {
  /** Where every request goes, whatever host it names; the `Host` header stays as the client sent it. */
  readonly to: string
  /** Changes the target of a request. Default: as it came. */
  readonly rewrite?: (target: URL) => void
}

export interface Recorder extends AsyncDisposable {
  /** For `HTTP_PROXY`. */
  readonly url: string
  readonly exchanges: readonly Exchange[]
  readonly forget: () => void
}

export async function startRecorder(options: RecorderOptions): Promise<Recorder> {
  const exchanges: Exchange[] = []
  const [hostname, port] = options.to.split(':')
  const server = createServer((request, response) => {
    const target = new URL(request.url ?? '/', `http://${request.headers.host ?? options.to}`)
    options.rewrite?.(target)
    const path = `${target.pathname}${target.search}`
    const { method, headers } = request
    const onward = httpRequest({ hostname, port, method, path, headers, setHost: false }, (answer) => {
      const hash = createHash('sha256')
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
      answer.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        response.write(chunk)
      })
      answer.on('error', () => response.destroy())
      answer.on('end', () => {
        const digestHeader = answer.headers['docker-content-digest']
        exchanges.push({
          method: method ?? '',
          target: path,
          status: answer.statusCode ?? 0,
          contentType: answer.headers['content-type'],
          digestHeader: Array.isArray(digestHeader) ? digestHeader.join(', ') : digestHeader,
          bodyDigest: `sha256:${hash.digest('hex')}`,
        })
        response.end()
      })
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address !== 'object') throw new Error('recorder has no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    exchanges,
    forget: () => {
      exchanges.length = 0
    },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  }
}
