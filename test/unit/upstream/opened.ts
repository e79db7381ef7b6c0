/** An upstream opened on scripted servers, with its events at hand and waits a test can afford. */
import assert from 'node:assert/strict'
import { codeOf, type ErrorCode } from '../../../src/errors.ts'
import { parseDigest } from '../../../src/oci/digest.ts'
import { parseTag, type Reference } from '../../../src/oci/reference.ts'
import { parseRepository, type Repository } from '../../../src/oci/repository.ts'
import { openUpstream, type RegistryUpstream } from '../../../src/upstream/client.ts'
import type { Capability, UpstreamEvent, UpstreamOptions } from '../../../src/upstream/options.ts'
import type { BlobStream } from '../../../src/upstream/upstream.ts'

export const { signal } = new AbortController()

export interface Opened extends AsyncDisposable {
  readonly upstream: RegistryUpstream
  readonly events: UpstreamEvent[]
}

type OpenOptions = Partial<Omit<UpstreamOptions, 'endpoints'>> & {
  readonly capabilities?: readonly (readonly Capability[])[]
}

/** The servers are its endpoints, in this order; loopback is allowed, since all of a test lives there. */
export function openOn(urls: string | readonly string[], options: OpenOptions = {}): Opened {
  const events: UpstreamEvent[] = []
  const { capabilities, timeouts, ...rest } = options
  const endpoints = [urls].flat().map((url, index) => ({
    url: new URL(url),
    capabilities: capabilities?.[index] ?? (['resolve', 'pull'] as const),
  }))
  const upstream = openUpstream({
    name: 'scripted',
    random: () => 0,
    allowPrivate: ['127.0.0.0/8', '::1'],
    version: '1.2.3',
    onEvent: (event) => events.push(event),
    ...rest,
    endpoints,
    timeouts: {
      connectMs: 3_000,
      headersMs: 3_000,
      blobHeadersMs: 3_000,
      gapMs: 300,
      callMs: 8_000,
      queueMs: 5_000,
      ...timeouts,
    },
  })
  return { upstream, events, [Symbol.asyncDispose]: () => upstream.close() }
}

export function repositoryOf(text: string): Repository {
  const repository = parseRepository(text)
  assert.ok(repository !== undefined, text)
  return repository
}

export function referenceOf(text: string): Reference {
  const reference = parseDigest(text) ?? parseTag(text)
  assert.ok(reference !== undefined, text)
  return reference
}

export async function bytesOfStream({ body }: BlobStream): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks)
}

export async function rejectsWith(code: ErrorCode, work: Promise<unknown>, message = /./): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.equal(codeOf(error), code, String(error))
    assert.match(String(error), message)
    return true
  })
}

/** A credential that is always there. */
export function secret(
  username: string,
  password: string,
): { read: () => Promise<{ username: string; password: string }> } {
  return { read: () => Promise.resolve({ username, password }) }
}
