import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestConfiguration } from './configuration.ts'

// `secret`, at the least cost.
const HTPASSWD = 'ci:$2y$04$WWo0ZFUkoLTVc8/wdkrF7.zP9Td/1lNu6WhMlK6HpYlzNc8dZGyxC\n'
const HUB = 'url: https://registry-1.docker.io\n'

function warningsOf(gateway: string, upstreams: Readonly<Record<string, string>>): readonly string[] {
  const files = Object.entries(upstreams).map(([name, text]) => [`upstreams.d/${name}.yaml`, text] as const)
  using folder = new TestConfiguration({ 'entrepot.yaml': gateway, ht: HTPASSWD, ...Object.fromEntries(files) })
  const { problems, warnings } = folder.load()
  assert.deepEqual(problems, [])
  return warnings
}

test('passwords earn a warning where Docker would send those of Docker Hub', () => {
  const clients = 'clients: { htpasswd: ht }'
  const rows: readonly (readonly [string, string, number])[] = [
    [clients, HUB, 1],
    [`listen: { address: '127.0.0.1:5000', default: docker.io }\n${clients}`, HUB, 1],
    [`listen: { address: '127.0.0.1:5000' }\n${clients}`, HUB, 0],
    [`listen: { address: '127.0.0.1:5000' }\n${clients}`, `${HUB}routes: { port: 5001 }`, 1],
    ['clients: { networks: [10.0.0.0/8] }', HUB, 0],
  ]
  for (const [gateway, hub, expected] of rows) {
    const warnings = warningsOf(gateway, { 'docker.io': hub })
    assert.equal(warnings.length, expected, `${gateway}\n${warnings.join('\n')}`)
    for (const warning of warnings)
      assert.match(warning, /^entrepot\.yaml:\d+:\d+ clients\.htpasswd: .* Docker Hub password/)
  }
})

test('passwords in plain text earn a warning, but not on loopback or behind a proxy', () => {
  const upstreams = { 'ghcr.io': 'url: https://ghcr.io' }
  const clients = 'clients: { htpasswd: ht }'
  assert.match(
    warningsOf(`listen: { address: ':5000' }\n${clients}`, upstreams).join(),
    /reach the listener :5000 in plain text/,
  )
  assert.deepEqual(warningsOf(`listen: { address: '127.0.0.1:5000' }\n${clients}`, upstreams), [])
  assert.deepEqual(warningsOf(`listen: { address: ':5000' }\ntrustedProxies: [10.0.0.1]\n${clients}`, upstreams), [])
})

test('a user that the htpasswd file has not earns a warning with the nearest one', () => {
  const upstreams = { 'ghcr.io': 'url: https://ghcr.io\nclients: { users: [ci, cj] }' }
  assert.deepEqual(warningsOf(`listen: { address: '127.0.0.1:5000' }\nclients: { htpasswd: ht }`, upstreams), [
    'upstreams.d/ghcr.io.yaml:2:24 clients.users: the htpasswd file has no user cj; did you mean ci?',
  ])
})
