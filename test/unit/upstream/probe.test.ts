import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { startScriptedRegistry } from '../../support/scripted-registry.ts'
import { startTokenServer } from '../../support/scripted-token-server.ts'
import { tinyImage } from '../../support/tiny-image.ts'
import { testAuthority } from '../../support/tls.ts'
import { openOn, referenceOf, repositoryOf, secret, signal, type Opened } from './opened.ts'

const image = tinyImage({ seed: 'probe', repository: 'acme/app' })
const authority = testAuthority()

function probe({ upstream }: Opened): ReturnType<typeof upstream.probe> {
  return upstream.probe({ repository: repositoryOf('acme/app'), reference: referenceOf('latest'), signal })
}

describe('probe', () => {
  it('tells address, certificate, login and manifest step by step', async () => {
    await using tokens = await startTokenServer({
      tls: authority.server(),
      accounts: [{ name: 'u', password: 'p', pulls: ['**'] }],
    })
    await using registry = await startScriptedRegistry({ tls: authority.server(), auth: tokens.auth() })
    registry.load(image)
    const options = { ca: [authority.ca], realms: [tokens.host], credentials: [{ source: secret('u', 'p') }] }
    await using opened = openOn(registry.url, options)
    const { endpoints, head } = await probe(opened)
    const [found] = endpoints
    assert.deepEqual([found?.endpoint, found?.dns.ok, found?.dns.detail], [registry.host, true, '127.0.0.1'])
    assert.match(found?.connect.detail ?? '', /^TLSv1\.3, issued by Entrepot test authority, expires in \d+ days$/)
    assert.match(found?.auth.detail ?? '', /^Bearer from 127\.0\.0\.1:\d+, token obtained with the credential$/)
    assert.match(head?.detail ?? '', new RegExp(`^${image.root.digest}, ${image.root.bytes.length} bytes$`))
    assert.equal(head?.ok, true)
  })

  it('an open registry needs no login', async () => {
    await using registry = await startScriptedRegistry()
    registry.load(image)
    await using opened = openOn(registry.url)
    const { endpoints, head } = await probe(opened)
    assert.equal(endpoints[0]?.connect.detail, 'plain http, 127.0.0.1')
    assert.equal(endpoints[0]?.auth.detail, 'no login needed for /v2/')
    assert.equal(head?.ok, true)
  })

  it('what is wrong is said at the step where it is wrong', async () => {
    await using tokens = await startTokenServer({ anonymousPulls: ['**'] })
    await using registry = await startScriptedRegistry({ auth: tokens.auth() })
    registry.load(image)
    await using bad = openOn(registry.url, { realms: [tokens.host], credentials: [{ source: secret('u', 'canary') }] })
    const refused = await probe(bad)
    assert.deepEqual([refused.endpoints[0]?.auth.ok, refused.head?.ok], [false, true])
    assert.match(refused.endpoints[0]?.auth.detail ?? '', /credential was refused/)
    assert.ok(!JSON.stringify(refused).includes('canary'))

    await using untrusted = openOn(registry.url)
    assert.match((await probe(untrusted)).endpoints[0]?.auth.detail ?? '', /not trusted/)

    await using secure = await startScriptedRegistry({ tls: authority.server() })
    await using wary = openOn(secure.url)
    const { endpoints, head } = await probe(wary)
    assert.match(endpoints[0]?.connect.detail ?? '', /^tls \(/)
    assert.match(endpoints[0]?.connect.code ?? '', /^(?:UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/)
    assert.equal(endpoints[0]?.auth.detail, 'not tried')
    assert.equal(head?.ok, false)

    await using nameless = openOn('https://registry.invalid')
    const lost = await probe(nameless)
    assert.deepEqual([lost.endpoints[0]?.dns.ok, lost.endpoints[0]?.connect.detail], [false, 'not tried'])
    assert.match(lost.endpoints[0]?.dns.code ?? '', /^(?:ENOTFOUND|EAI_AGAIN)$/)

    await registry.close()
    const closed = await probe(untrusted)
    assert.deepEqual([closed.endpoints[0]?.connect.code, closed.head?.code], ['ECONNREFUSED', 'ECONNREFUSED'])
  })
})
