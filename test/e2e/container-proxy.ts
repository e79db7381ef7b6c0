// A corporate proxy: CONNECT, and nothing else. Every tunnel it is asked for ends on this machine's loopback.

import { createServer } from 'node:http'
import { connect } from 'node:net'

export interface TunnelProxy extends AsyncDisposable {
  readonly url: string
  /** `host:port` of every tunnel so far. */
  readonly tunnels: readonly string[]
  readonly stop: () => Promise<void>
}

/** Listens on `address`, where containers reach it. Refuses tunnels to any other host than this one. */
export async function startTunnelProxy(address: string): Promise<TunnelProxy> {
  const tunnels: string[] = []
  const sockets = new Set<{ destroy: () => void }>()
  const server = createServer((_request, response) => response.writeHead(405).end())
  server.on('connect', (request, client) => {
    const target = request.url ?? ''
    tunnels.push(target)
    const [, port] = /^(?:localhost|127\.0\.0\.1):(\d+)$/.exec(target) ?? []
    if (port === undefined) return void client.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    const upstream = connect(Number(port), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      upstream.pipe(client).pipe(upstream)
    })
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, address, resolve)
  })
  const bound = server.address()
  if (bound === null || typeof bound !== 'object') throw new Error('the proxy has no port')
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  return { url: `http://${address}:${bound.port}`, tunnels, stop, [Symbol.asyncDispose]: stop }
}
