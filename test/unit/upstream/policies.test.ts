/** The small pure rules: scopes, redirects, retries, budgets, Links, token replies. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { codeOf } from '../../../src/errors.ts'
import { parseRepository, type Repository } from '../../../src/oci/repository.ts'
import { RateBudgets } from '../../../src/upstream/budget.ts'
import { nextQuery } from '../../../src/upstream/link.ts'
import { planRedirect, usableUntil } from '../../../src/upstream/redirect.ts'
import { backoffMs, retryAfterOf, RetryBudget } from '../../../src/upstream/retry.ts'
import { isPredictable, planScopes, scopeKey } from '../../../src/upstream/scope.ts'
import { parseToken } from '../../../src/upstream/token.ts'
import { ReplyHeaders } from '../../../src/upstream/transport.ts'
import { ManualClock } from '../../support/manual-clock.ts'

function repository(text: string): Repository {
  const parsed = parseRepository(text)
  assert.ok(parsed !== undefined)
  return parsed
}

describe('scopes', () => {
  const rows: readonly (readonly [name: string, challenged: string | undefined, expected: readonly string[]])[] = [
    ['none asked: ours', undefined, ['repository:acme/app:pull']],
    ['empty', '', ['repository:acme/app:pull']],
    ['ours', 'repository:acme/app:pull', ['repository:acme/app:pull']],
    ['push is dropped', 'repository:acme/app:pull,push', ['repository:acme/app:pull']],
    ['everything is reduced', 'repository:acme/app:delete,pull,*', ['repository:acme/app:pull']],
    ['behind a prefix theirs counts', 'repository:proxy/acme/app:pull,push', ['repository:proxy/acme/app:pull']],
    ['ECR Public', 'aws', ['repository:acme/app:pull', 'aws']],
    ['repository first', 'aws repository:acme/app:pull', ['repository:acme/app:pull', 'aws']],
    ['no pull to reduce to is kept', 'repository:acme/app:*', ['repository:acme/app:*']],
    ['doubles', 'repository:acme/app:pull  repository:acme/app:push,pull', ['repository:acme/app:pull']],
    ['a resource class', 'repository(plugin):acme/app:pull,push', ['repository(plugin):acme/app:pull']],
  ]
  for (const [name, challenged, expected] of rows) {
    it(name, () => assert.deepEqual(planScopes(challenged, repository('acme/app')), expected))
  }

  it('a hundred scopes are cut to eight, over-long ones dropped', () => {
    const many = Array.from({ length: 100 }, (_, index) => `repository:r${index}:pull`).join(' ')
    assert.equal(planScopes(many, repository('a')).length, 8)
    assert.deepEqual(planScopes(`repository:${'a'.repeat(600)}:pull`, repository('a')), ['repository:a:pull'])
  })

  it('equal sets have equal keys; only the plain scope is predictable', () => {
    assert.equal(scopeKey(['b', 'a', 'b']), scopeKey(['a', 'b']))
    assert.equal(isPredictable(['repository:a:pull'], repository('a')), true)
    assert.equal(isPredictable(['repository:a:pull', 'aws'], repository('a')), false)
    assert.equal(isPredictable(['repository:b:pull'], repository('a')), false)
  })
})

describe('redirects', () => {
  const from = new URL('https://registry.example/v2/a/blobs/x')

  it('absolute, relative and scheme-relative targets are resolved', () => {
    assert.equal(planRedirect(from, 'https://cdn.example/b?s=1#f', 's').href, 'https://cdn.example/b?s=1')
    assert.equal(planRedirect(from, '/other', 's').href, 'https://registry.example/other')
    assert.equal(planRedirect(from, '//cdn.example/b', 's').href, 'https://cdn.example/b')
  })

  const refused: readonly (string | undefined)[] = [
    undefined,
    '',
    'http://cdn.example/b',
    'http://registry.example/',
    'file:///etc/passwd',
    'ftp://cdn.example/',
    'https://u@cdn.example/',
    'https://u:p@cdn.example/',
    'https://',
    'https://[::1',
    'javascript:1',
    `https://cdn.example/${'a'.repeat(20_000)}`,
  ]
  for (const location of refused) {
    it(`refused: ${location?.slice(0, 40) ?? 'no Location'}`, () => {
      assert.throws(
        () => planRedirect(from, location, 's'),
        (error: unknown) => codeOf(error) === 'UPSTREAM_INVALID',
      )
    })
  }

  it('a signed address is used until shortly before it expires', () => {
    const now = Date.UTC(2026, 0, 1)
    const until = (query: string): number => usableUntil(new URL(`https://cdn.example/b?${query}`), now) - now
    assert.equal(until('X-Amz-Expires=3600&X-Amz-Date=20260101T000000Z'), 3_590_000)
    assert.equal(until('X-Goog-Expires=300'), 290_000)
    assert.equal(until(`Expires=${now / 1_000 + 600}`), 590_000)
    assert.equal(until('se=2026-01-01T00%3A10%3A00Z'), 590_000)
    assert.equal(until('token=opaque'), 60_000)
    assert.equal(until('X-Amz-Expires=lots'), 60_000)
  })
})

describe('retries', () => {
  it('the wait is random between nothing and a doubling cap', () => {
    assert.equal(
      backoffMs(0, () => 0),
      0,
    )
    assert.equal(
      backoffMs(0, () => 0.999),
      200,
    )
    assert.equal(
      backoffMs(1, () => 0.5),
      200,
    )
    assert.equal(
      backoffMs(30, () => 0.999),
      1_998,
    )
  })

  it('a tenth of the requests may be retried, after a small burst', () => {
    const budget = new RetryBudget()
    for (let spent = 0; spent < 10; spent++) assert.equal(budget.spend(), true)
    assert.equal(budget.spend(), false)
    for (let earned = 0; earned < 9; earned++) budget.earn()
    assert.equal(budget.spend(), false)
    budget.earn()
    budget.earn()
    assert.equal(budget.spend(), true)
    assert.equal(budget.spend(), false)
  })

  it('Retry-After is read as seconds or as a date, and capped', () => {
    const now = Date.UTC(2026, 0, 1)
    assert.equal(retryAfterOf('30', now), 30_000)
    assert.equal(retryAfterOf(' 0 ', now), 0)
    assert.equal(retryAfterOf('86400', now), 60_000)
    assert.equal(retryAfterOf('Thu, 01 Jan 2026 00:00:20 GMT', now), 20_000)
    assert.equal(retryAfterOf('Wed, 31 Dec 2025 00:00:00 GMT', now), 0)
    for (const text of [undefined, '', 'soon', '-5', '1.5', '99999999999'])
      assert.equal(retryAfterOf(text, now), undefined)
  })
})

describe('pull budget', () => {
  const seen = (limit: string, remaining: string): ReplyHeaders =>
    new ReplyHeaders({ 'ratelimit-limit': limit, 'ratelimit-remaining': remaining })

  it('is low at a quarter, per identity, and forgotten after its window', () => {
    const clock = new ManualClock()
    const budgets = new RateBudgets(clock)
    budgets.observe('a', seen('100;w=21600', '26;w=21600'))
    assert.equal(budgets.isLow('a'), false)
    budgets.observe('a', seen('100;w=21600', '25;w=21600'))
    assert.equal(budgets.isLow('a'), true)
    assert.equal(budgets.isLow('b'), false)
    budgets.observe('a', new ReplyHeaders({}))
    assert.equal(budgets.get('a')?.remaining, 25)
    clock.advance(21_600_000)
    assert.equal(budgets.isLow('a'), false)
  })

  it('malformed headers change nothing', () => {
    const budgets = new RateBudgets(new ManualClock())
    for (const [limit, remaining] of [
      ['x', '1'],
      ['1', ''],
      ['-1', '0'],
      ['1;w=x', '0'],
      ['1e9', '0'],
    ] as const) {
      budgets.observe('a', seen(limit, remaining))
    }
    assert.equal(budgets.get('a'), undefined)
  })
})

describe('Link', () => {
  const url = new URL('https://quay.io/v2/a/tags/list?n=5')
  const next = (...headers: string[]): string | undefined => nextQuery(headers, url, 's')

  it('gives the query of the next page alone', () => {
    assert.equal(next('</v2/a/tags/list?last=b&n=5>; rel="next"'), 'last=b&n=5')
    assert.equal(next('<https://quay.io/wrong/prefix?next_page=x%3D%3D>; rel=next'), 'next_page=x%3D%3D')
    assert.equal(next('</p?a=1>; rel="prev", </n?b=2>; rel="next"'), 'b=2')
    assert.equal(next('</p?a=1>; rel="first"', '</n?b=2>; foo=bar; rel="up next"'), 'b=2')
    assert.equal(next('<?last=z>; rel="next"'), 'last=z')
    assert.equal(next(), undefined)
    assert.equal(next('</p>; rel="prev"'), undefined)
    assert.equal(next('</p?a>; rel="nextish"'), undefined)
    assert.equal(next('garbage; rel="next"'), undefined)
    assert.equal(next('</n>; rel="next"'), undefined)
  })

  it('another host is refused', () => {
    for (const target of [
      'https://evil.test/v2/?last=b',
      '//evil.test/?last=b',
      'https://quay.io:444/?last=b',
      'http://[',
    ]) {
      assert.throws(
        () => next(`<${target}>; rel="next"`),
        (error: unknown) => codeOf(error) === 'UPSTREAM_INVALID',
        target,
      )
    }
  })
})

describe('token replies', () => {
  const rows: readonly (readonly [text: string, expected: readonly [string, number] | undefined])[] = [
    ['{"token":"t","expires_in":300}', ['t', 300]],
    ['{"access_token":"a"}', ['a', 60]],
    ['{"token":"t","access_token":"a"}', ['t', 60]],
    ['{"token":"","access_token":"a","expires_in":120}', ['a', 120]],
    ['{"token":"t","expires_in":0}', ['t', 60]],
    ['{"token":"t","expires_in":-5}', ['t', 60]],
    ['{"token":"t","expires_in":1e12}', ['t', 3_600]],
    ['{"token":"t","expires_in":3}', ['t', 10]],
    ['{"token":"t","expires_in":"300"}', ['t', 60]],
    ['{"token":"t","expires_in":null}', ['t', 60]],
    ['{"token":"t","issued_at":"1970-01-01T00:00:00Z","expires_in":300}', ['t', 300]],
    ['{"token":"two words"}', undefined],
    ['{"token":"a\\r\\nX: y"}', undefined],
    ['{"token":5}', undefined],
    ['{"details":"no"}', undefined],
    ['[]', undefined],
    ['null', undefined],
    ['"t"', undefined],
    ['', undefined],
    ['<html>', undefined],
    ['{"__proto__":{"token":"t"}}', undefined],
  ]
  for (const [text, expected] of rows) {
    it(text, () => {
      const parsed = parseToken(text)
      assert.deepEqual(parsed && [parsed.value, parsed.lifetimeMs / 1_000], expected)
    })
  }
})
