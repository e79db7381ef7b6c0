import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { GatewayError, isNonAnswer, type ErrorCode } from '../../../src/errors.ts'
import { ERROR_RULES, errorReply, proxyStatus } from '../../../src/registry/error-reply.ts'

const codes = Object.keys(ERROR_RULES) as ErrorCode[]
const requestId = '0123456789abcdef'

function bodyOf(error: unknown): { code: string; message: string; detail: { requestId: string } } {
  const { body } = errorReply(error, { requestId })
  assert.ok(body instanceof Uint8Array)
  return JSON.parse(Buffer.from(body).toString()).errors[0]
}

test('docs/errors.md has the table as the code has it', async () => {
  const rows = codes.map((code) => {
    const { status, ociCode, retryAfter, sentence } = ERROR_RULES[code]
    const stale = isNonAnswer(new GatewayError(code, '')) ? 'yes' : ''
    return `| \`${code}\` | ${status} | ${ociCode} | ${retryAfter === undefined ? '' : `${retryAfter} s`} | ${stale} | ${sentence} |`
  })
  const text = await readFile(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
  assert.deepEqual(
    text.split('\n').filter((line) => line.startsWith('| `')),
    rows,
  )
})

test('every reply is JSON with a code, a sentence and the request id', () => {
  for (const code of codes) {
    const reply = errorReply(new GatewayError(code, 'detail'), { requestId })
    assert.equal(reply.status, ERROR_RULES[code].status)
    assert.equal(reply.headers['content-type'], 'application/json')
    assert.equal(reply.headers['content-length'], String((reply.body as Uint8Array).length))
    assert.equal(reply.headers['x-content-type-options'], 'nosniff')
    assert.equal(bodyOf(new GatewayError(code, 'x')).detail.requestId, requestId)
  }
})

test('what an upstream or a folder did is not told to the client', () => {
  const secret = 'https://cdn.example/blob?X-Amz-Signature=canary'
  for (const code of codes.filter((each) => ERROR_RULES[each].detail === undefined)) {
    assert.doesNotMatch(JSON.stringify(bodyOf(new GatewayError(code, secret))), /canary/)
  }
  assert.doesNotMatch(JSON.stringify(bodyOf(new Error(secret))), /canary/)
  assert.doesNotMatch(JSON.stringify(bodyOf(secret)), /canary/)
})

test('what the client sent wrong is told, bounded and without control characters', () => {
  const { message } = bodyOf(new GatewayError('NAME_INVALID', `bad\r\n\u001b[31m${'x'.repeat(1000)}`))
  assert.match(message, /^invalid repository name: bad {3}\[31mx+$/)
  assert.ok(message.length < 400)
})

test('no answer of the upstream is ever told as 404', () => {
  for (const code of codes.filter((each) => isNonAnswer(new GatewayError(each, '')))) {
    assert.ok(ERROR_RULES[code].status >= 429, code)
  }
})

test('Retry-After is whole seconds, at least one, from the error where it names a time', () => {
  const after = (code: ErrorCode, retryAfterMs?: number) =>
    errorReply(new GatewayError(code, '', retryAfterMs === undefined ? {} : { retryAfterMs }), { requestId }).headers[
      'retry-after'
    ]
  assert.equal(after('UPSTREAM_UNREACHABLE'), '5')
  assert.equal(after('UPSTREAM_THROTTLED', 30_000), '30')
  assert.equal(after('UPSTREAM_THROTTLED', 1), '1')
  assert.equal(after('UPSTREAM_THROTTLED', 0), '1')
  assert.equal(after('UPSTREAM_THROTTLED', 1e12), '3600')
  assert.equal(after('UPSTREAM_THROTTLED', Number.NaN), '30')
  assert.equal(after('OVERLOADED'), '1')
  assert.equal(after('MANIFEST_UNKNOWN', 5000), undefined)
  assert.equal(after('UPSTREAM_INVALID'), undefined)
})

test('405 says what is allowed', () => {
  assert.equal(errorReply(new GatewayError('UNSUPPORTED', ''), { requestId }).headers['allow'], 'GET, HEAD')
})

test('Proxy-Status names the kind of failure alone', () => {
  assert.equal(proxyStatus('UPSTREAM_UNREACHABLE'), 'entrepot; error=destination_unavailable')
  assert.equal(proxyStatus('MANIFEST_UNKNOWN'), undefined)
  assert.equal(proxyStatus(undefined), 'entrepot; error=proxy_internal_error')
  for (const code of codes)
    assert.match(proxyStatus(code) ?? 'entrepot; error=x', /^entrepot; error=[a-z_]+(; received-status=429)?$/)
})

test('a refusal that is repeated from memory says so', () => {
  const reply = (isRemembered: boolean) =>
    errorReply(new GatewayError('BLOB_UNKNOWN', '', { isRemembered }), { requestId })
  assert.deepEqual([reply(true).outcome, reply(false).outcome], ['negative', undefined])
})

test('a reply may carry further headers', () => {
  const reply = errorReply(new GatewayError('RANGE_INVALID', ''), {
    requestId,
    headers: { 'content-range': 'bytes */5' },
  })
  assert.equal(reply.headers['content-range'], 'bytes */5')
})
