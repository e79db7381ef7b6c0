// The official distribution-spec conformance program, read-only (pull and content discovery), through every way of routing:
// cold, warm, and with the upstream stopped. The program panics after its summary in read-only mode (it cannot write its
// report), so its printed lines are what counts, not its exit code.
//
// Digest headers: the program can require them on blobs; on manifests its read-only mode reports each as missing (it never
// looks at the answer it got), whatever the registry. So all its requests pass a recorder, and here every manifest answer
// must carry the header, equal to the hash of the body.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Image, loadContent } from '../e2e/content.ts'
import { type Gateway, startGateway, type UpstreamFile } from '../e2e/gateway.ts'
import { labProgram, missingProgram, runAny, temporaryFolder } from '../e2e/lab.ts'
import { type Exchange, type Recorder, startRecorder } from '../e2e/recorder.ts'
import { startPlainRegistry, type Upstream } from '../e2e/upstreams.ts'

const UPSTREAM = 'quay.io'
/** Short, so that every run asks the upstream again about tags, and the last one meets it gone. */
const TAG_TTL_MS = 1000

interface Route {
  readonly name: string
  /** host:port as the program is told it. Names resolve nowhere: the recorder sends all of it to the gateway. */
  readonly registry: (gateway: Gateway) => string
  /** The listener it must end at. */
  readonly to: (gateway: Gateway) => string
  readonly prefix?: string
  readonly rewrite?: (target: URL) => void
}

const portOf = (gateway: Gateway): string => gateway.ports[UPSTREAM] ?? ''

const ROUTES: readonly Route[] = [
  { name: 'port', registry: () => 'gateway.test', to: portOf },
  { name: 'default', registry: () => 'gateway.test', to: (gateway) => gateway.all },
  { name: 'host', registry: () => `${UPSTREAM}.localhost`, to: (gateway) => gateway.all },
  { name: 'inner prefix', registry: () => 'gateway.test', to: (gateway) => gateway.all, prefix: `${UPSTREAM}/` },
  {
    name: 'outer prefix',
    registry: () => 'gateway.test',
    to: (gateway) => gateway.all,
    rewrite: (target) => {
      target.pathname = `/${UPSTREAM}${target.pathname}`
    },
  },
  {
    name: 'ns',
    registry: () => 'gateway.test',
    to: (gateway) => gateway.all,
    rewrite: (target) => {
      target.searchParams.set('ns', UPSTREAM)
    },
  },
  {
    name: 'ns + inner prefix',
    registry: () => 'gateway.test',
    to: (gateway) => gateway.all,
    prefix: `${UPSTREAM}/`,
    rewrite: (target) => {
      target.searchParams.set('ns', UPSTREAM)
    },
  },
]

interface Outcome {
  readonly pass: number
  readonly fail: number
  readonly error: number
  /** Every test line that did not pass, with its reason. */
  readonly failures: string
  readonly apis: ReadonlyMap<string, string>
}

/** Reads the summary: `  Pass....: 14`, and one line for each API below `API conformance:`. */
function parseOutcome(stdout: string): Outcome {
  const count = (word: string): number => {
    const found = new RegExp(`^ {2}${word}\\.+: +(\\d+)$`, 'm').exec(stdout)?.[1]
    if (found === undefined) throw new Error(`the conformance program printed no summary:\n${stdout.slice(-2000)}`)
    return Number(found)
  }
  const apis = new Map<string, string>()
  const list = stdout.slice(stdout.indexOf('API conformance:'))
  for (const [, name, result] of list.matchAll(/^ {2}([A-Za-z ]+?)\.+: +(\S+)/gm)) apis.set(name ?? '', result ?? '')
  const results = stdout.slice(0, stdout.indexOf('Configuration:')).split('\n')
  const failures = results.filter((line) => /: (FAIL|Error)$|^ *- /.test(line)).join('\n')
  return { pass: count('Pass'), fail: count('FAIL'), error: count('Error'), failures, apis }
}

interface RunOptions {
  readonly registry: string
  readonly repository: string
  readonly recorder: Recorder
  readonly image: Image
  readonly tags: readonly string[]
  readonly filter?: string
}

async function runConformance(options: RunOptions): Promise<Outcome> {
  const { image, recorder } = options
  await using results = await temporaryFolder()
  const ran = await runAny(labProgram('conformance'), [], {
    cwd: results.path,
    timeoutMs: 120_000,
    env: {
      HTTP_PROXY: recorder.url,
      http_proxy: recorder.url,
      NO_PROXY: '',
      no_proxy: '',
      OCI_REGISTRY: options.registry,
      OCI_TLS: 'disabled',
      OCI_REPO1: options.repository,
      OCI_REPO2: options.repository,
      OCI_VERSION: '1.1',
      OCI_RESULTS_DIR: results.path,
      OCI_API_PUSH: 'false',
      OCI_API_BLOBS_DELETE: 'false',
      OCI_API_MANIFESTS_DELETE: 'false',
      OCI_API_TAGS_DELETE: 'false',
      OCI_API_REFERRER: 'true',
      OCI_API_TAGS_LIST: 'true',
      OCI_API_BLOBS_DIGEST_HEADER: 'true',
      OCI_RO_DATA_TAGS: options.tags.join(' '),
      OCI_RO_DATA_MANIFESTS: [...new Set([image.digest, ...image.manifests])].join(' '),
      OCI_RO_DATA_BLOBS: image.blobs.map((blob) => blob.digest).join(' '),
      OCI_RO_DATA_REFERRERS: image.digest,
      ...(options.filter === undefined ? {} : { OCI_FILTER_TEST: options.filter }),
    },
  })
  return parseOutcome(ran.stdout)
}

/** Every manifest and blob that was given carries its digest; every body hashes to it. */
function assertDigestHeaders(exchanges: readonly Exchange[]): void {
  const given = exchanges.filter(({ status, target }) => status === 200 && /\/(manifests|blobs)\//.test(target))
  assert.ok(given.length > 0, 'the program asked for manifests and blobs')
  for (const { method, target, digestHeader, bodyDigest } of given) {
    assert.ok(digestHeader !== undefined, `${method} ${target}: no Docker-Content-Digest`)
    if (method === 'GET') assert.equal(digestHeader, bodyDigest, `${method} ${target}`)
  }
}

const missing = missingProgram(labProgram('conformance')) ?? missingProgram(labProgram('registry'))
const rows: string[] = []

void describe('distribution-spec conformance', { concurrency: false }, () => {
  before(() => assert.equal(missing, undefined, 'run test/e2e/setup.ts first'))

  for (const route of ROUTES) {
    void test(`by ${route.name}: cold, warm and with the upstream stopped`, { timeout: 300_000 }, async (t) => {
      const content = await loadContent()
      await using folder = await temporaryFolder()
      await using upstream = await startPlainRegistry(`${folder.path}/upstream`, content.storage(UPSTREAM))
      await using gateway = await startGateway({
        folder: `${folder.path}/gateway`,
        upstreams: [upstreamFile(upstream)],
        default: UPSTREAM,
      })
      const { rewrite } = route
      const to = route.to(gateway)
      await using recorder = await startRecorder(rewrite === undefined ? { to } : { to, rewrite })
      const registry = route.registry(gateway)
      const image = content.image('signed')
      const repository = `${route.prefix ?? ''}${image.repository}`
      const options = { registry, repository, recorder, image, tags: [image.tag] }

      for (const phase of ['cold', 'warm'] as const) {
        await t.test(phase, async () => {
          recorder.forget()
          const outcome = await runConformance(options)
          record(route.name, phase, outcome)
          assertNothingFailed(outcome)
          assertDigestHeaders(recorder.exchanges)
        })
        await delay(TAG_TTL_MS + 100)
      }

      await upstream.stop()
      await t.test('upstream stopped', async () => {
        recorder.forget()
        // What the cache cannot know (a random digest, a random tag, referrers of a random digest) is not asked here:
        // the program wants 404 or an empty list, and a non-answer of the upstream must not be told as either.
        for (const branch of ['ping', 'empty/tag list', 'read-only', 'invalid-digest-format']) {
          const outcome = await runConformance({ ...options, filter: `OCI Conformance Test/${branch}` })
          record(route.name, `stopped: ${branch}`, outcome)
          assertNothingFailed(outcome)
        }
        assertDigestHeaders(recorder.exchanges)
      })
      await t.test('upstream stopped: what is not held is never told as missing', async () => {
        const base = `http://${portOf(gateway)}/v2/${image.repository}`
        for (const path of [
          'manifests/never-seen',
          `manifests/sha256:${'0'.repeat(64)}`,
          `blobs/sha256:${'0'.repeat(64)}`,
        ]) {
          const response = await fetch(`${base}/${path}`)
          await response.body?.cancel()
          assert.ok(response.status >= 500, `${path}: ${response.status}`)
        }
      })
    })
  }

  after(() => {
    if (rows.length > 0) process.stdout.write(`${rows.join('\n')}\n`)
  })
})

function upstreamFile(upstream: Upstream): UpstreamFile {
  return { name: UPSTREAM, url: upstream.url, tags: { ttl: `${TAG_TTL_MS / 1000}s` } }
}

function assertNothingFailed(outcome: Outcome): void {
  assert.equal(outcome.fail + outcome.error, 0, outcome.failures)
  assert.ok(outcome.pass > 0, 'something was tested')
}

function record(route: string, phase: string, { pass, fail, error }: Outcome): void {
  rows.push(`conformance ${route.padEnd(18)} ${phase.padEnd(31)} pass ${pass} fail ${fail} error ${error}`)
}
