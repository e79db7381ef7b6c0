/** A small egress proxy: CONNECT tunnels and absolute-form requests, with a record of what it was asked. */
import { once } from 'node:events'
import { createServer, request as sendRequest } from 'node:http'
import { connect, type Socket } from 'node:net'

export interface ConnectProxy extends AsyncDisposable {
  readonly url: string
  /** `CONNECT host:port` or `GET http://…`, with the proxy credentials when there were any. */
  readonly asked: { readonly line: string; readonly authorization: string | undefined }[]
}

export interface ConnectProxyOptions {
  /** Where every name leads, as a proxy's own resolver would have it. Default: as named. */
  readonly target?: { readonly host: string; readonly port: number }
  /** Answered to every CONNECT instead of a tunnel. */
  readonly refusal?: number
}

export async function startConnectProxy({ target, refusal }: ConnectProxyOptions = {}): Promise<ConnectProxy> {
  const asked: { line: string; authorization: string | undefined }[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    asked.push({ line: `${request.method} ${request.url}`, authorization: request.headers['proxy-authorization'] })
    const url = new URL(request.url ?? '/', 'http://nowhere.invalid')
    const { 'proxy-authorization': _own, 'proxy-connection': _hop, ...headers } = request.headers
    const place = target ?? { host: url.hostname, port: Number(url.port || 80) }
    const onward = sendRequest(
      { ...place, path: `${url.pathname}${url.search}`, method: request.method, headers },
      (reply) => {
        response.writeHead(reply.statusCode ?? 502, reply.headers)
        reply.pipe(response)
      },
    )
    onward.on('error', () => response.writeHead(502).end())
    onward.end()
  })
  server.on('connect', (request, client: Socket) => {
    asked.push({ line: `CONNECT ${request.url}`, authorization: request.headers['proxy-authorization'] })
    client.on('error', () => client.destroy())
    if (refusal !== undefined) return void client.end(`HTTP/1.1 ${refusal} No\r\n\r\n`)
    const { hostname, port } = new URL(`http://${request.url}`)
    const onward = connect(target ?? { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443) })
    onward.on('error', () => client.end('HTTP/1.1 502 No\r\n\r\n'))
    onward.once('connect', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      onward.pipe(client).pipe(onward)
    })
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const dispose = async (): Promise<void> => {
    server.close()
    for (const socket of sockets) socket.destroy()
    await Promise.resolve()
  }
  return { url: `http://127.0.0.1:${port}`, asked, [Symbol.asyncDispose]: dispose }
}
