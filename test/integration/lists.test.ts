/** Tag lists and the catalog, by every way of reaching an upstream, in pages and without the upstream. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask, type Answer, type AskOptions } from '../support/client.ts'
import { startPair, type GatewayPair } from '../support/gateway-pair.ts'
import { startScriptedRegistry } from '../support/scripted-registry.ts'
import { startTestGateway } from '../support/start-gateway.ts'
import { tinyImage } from '../support/tiny-image.ts'

const image = tinyImage({ seed: 'listed', repository: 'acme/app', tag: 'a' })
const TAGS = ['a', 'b', 'c', 'd', 'e']

async function offer(maxPage?: number): Promise<GatewayPair> {
  const pair = await startPair({ registry: maxPage === undefined ? {} : { maxPage } })
  pair.registry.load(image)
  for (const tag of TAGS) pair.registry.repository('acme/app').tag(tag, image.root)
  return pair
}

interface TagList {
  readonly name: string
  readonly tags: string[]
}

function listOf(answer: Answer): TagList {
  assert.equal(answer.status, 200, answer.body.toString())
  return JSON.parse(answer.body.toString()) as TagList
}

function nextOf(answer: Answer): string | undefined {
  return /^<(.+)>; rel="next"$/.exec(String(answer.headers['link'] ?? ''))?.[1]
}

test('pages of tags follow each other whatever the way of asking, with its prefix and its query', async () => {
  await using pair = await offer(2)
  const starts = ['/v2/acme/app/tags/list', '/v2/origin/acme/app/tags/list', '/origin/v2/acme/app/tags/list']
  for (const start of starts) {
    for (const query of ['?n=2', '?n=2&ns=origin', '?ns=origin', '?n=2&ns=origin&unknown=x%2Fy', '']) {
      const seen: string[] = []
      let path: string | undefined = start + query
      for (let pages = 0; path !== undefined && pages < 6; pages++) {
        assert.ok(path.startsWith(`${start}${query === '' && pages === 0 ? '' : '?'}`), path)
        if (query.includes('unknown')) assert.match(path, /unknown=x%2Fy/)
        assert.equal(path.includes('ns=origin'), query.includes('ns=origin'))
        const page: Answer = await ask(pair.gateway.url + path)
        seen.push(...listOf(page).tags)
        path = nextOf(page)
      }
      assert.deepEqual(seen, TAGS, start + query)
    }
  }
  assert.ok(pair.registry.matching({ kind: 'tags' }).every(({ query }) => !query.has('ns')))
})

test('the name in a list is the one that was asked', async () => {
  await using registry = await startScriptedRegistry()
  registry.repository('library/alpine').tag('1', image.root)
  await using gateway = await startTestGateway({ upstreams: { 'docker.io': `url: ${registry.url}` } })
  const name = async (path: string): Promise<string> => listOf(await ask(`${gateway.url}/v2/${path}/tags/list`)).name
  assert.equal(await name('docker.io/alpine'), 'docker.io/alpine')
  assert.equal(await name('docker.io/library/alpine'), 'docker.io/library/alpine')
})

test('last without n, n=0, and an n that is none', async () => {
  await using pair = await offer()
  assert.deepEqual(listOf(await pair.get('acme/app/tags/list?last=c')).tags, ['d', 'e'])
  const before = pair.registry.count({ kind: 'tags' })
  const none = await pair.get('acme/app/tags/list?n=0')
  assert.deepEqual([listOf(none).tags, nextOf(none)], [[], undefined])
  for (const bad of ['n=-1', 'n=x', 'n=1&n=2', `last=${'x'.repeat(600)}`]) {
    const answer = await pair.get(`acme/app/tags/list?${bad}`)
    assert.deepEqual([answer.status, answer.body.includes('PAGINATION_NUMBER_INVALID')], [400, true], bad)
  }
  assert.equal(pair.registry.count({ kind: 'tags' }), before)
  await pair.get('acme/app/tags/list?n=1000000000')
  assert.equal(pair.registry.matching({ kind: 'tags' }).at(-1)?.query.get('n'), '1000')
})

test('without the upstream the last list is given, else the tags that are held, in pages', async () => {
  await using pair = await offer()
  for (const tag of ['a', 'b', 'c']) await pair.get(`acme/app/manifests/${tag}`)
  await pair.get('acme/app/tags/list?n=100')
  await pair.registry.close()
  assert.deepEqual(listOf(await pair.get('acme/app/tags/list?n=100')).tags, TAGS)
  const held = await pair.get('acme/app/tags/list?n=2')
  assert.deepEqual([listOf(held).tags, held.headers['cache-status']], [['a', 'b'], 'entrepot; hit; detail=stale'])
  assert.deepEqual(listOf(await ask(pair.gateway.url + String(nextOf(held)))).tags, ['c'])
  assert.equal((await pair.get('acme/other/tags/list')).status, 503)
})

test('a repository that the upstream does not have is 404', async () => {
  await using pair = await offer()
  const answer = await pair.get('acme/none/tags/list')
  assert.deepEqual([answer.status, answer.body.includes('NAME_UNKNOWN')], [404, true])
})

test('the catalog of an address lists what can be pulled there, allowed, in pages', async () => {
  await using one = await startScriptedRegistry()
  await using two = await startScriptedRegistry()
  for (const name of ['acme/a', 'acme/b', 'hidden/c']) {
    one
      .repository(name)
      .add(...image.manifests)
      .tag('1', image.root)
    two
      .repository(name)
      .add(...image.manifests)
      .tag('1', image.root)
  }
  await using gateway = await startTestGateway({
    upstreams: {
      'one.test': `url: ${one.url}\ndeny: ['hidden/**']`,
      'two.test': `url: ${two.url}\nroutes: { hosts: [two.mirror.test], prefix: second }`,
    },
    default: 'one.test',
  })
  const pulled = ['acme/a', 'acme/b', 'two.test/acme/b', 'two.test/hidden/c']
  for (const name of pulled) assert.equal((await ask(`${gateway.url}/v2/${name}/manifests/1`)).status, 200, name)
  const catalog = async (path: string, options: AskOptions = {}): Promise<string[]> => {
    const seen: string[] = []
    let next: string | undefined = path
    for (let pages = 0; next !== undefined && pages < 9; pages++) {
      const page: Answer = await ask(gateway.url + next, options)
      seen.push(...(JSON.parse(page.body.toString()) as { readonly repositories: string[] }).repositories)
      next = nextOf(page)
    }
    return seen
  }
  const everything = ['acme/a', 'acme/b', 'second/acme/b', 'second/hidden/c']
  assert.deepEqual(await catalog('/v2/_catalog'), everything)
  assert.deepEqual(await catalog('/v2/_catalog?n=1'), everything)
  assert.deepEqual(await catalog('/v2/_catalog?n=3&last=acme/a'), everything.slice(1))
  assert.deepEqual(await catalog('/v2/_catalog?ns=two.test'), ['acme/b', 'hidden/c'])
  assert.deepEqual(await catalog('/v2/_catalog?n=1', { headers: { host: 'two.mirror.test' } }), ['acme/b', 'hidden/c'])
  assert.deepEqual(await catalog('/v2/_catalog?n=0'), [])
  for (const name of await catalog('/v2/_catalog')) {
    assert.equal((await ask(`${gateway.url}/v2/${name}/manifests/1`)).status, 200, `${name} is pullable as listed`)
  }
})
