import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { REDACTED, SecretSet } from '../../../src/telemetry/redact.ts'

describe('SecretSet', () => {
  test('replaces a secret wherever it stands, and the longest where several begin', () => {
    const secrets = new SecretSet()
    for (const secret of ['hunter2', 'hunter2-longer', 'another']) secrets.add(secret)
    assert.equal(secrets.scrub('hunter2'), REDACTED)
    assert.equal(
      secrets.scrub('x hunter2-longer, hunter2hunter2! anothe another'),
      `x ${REDACTED}, ${REDACTED}${REDACTED}! anothe ${REDACTED}`,
    )
    assert.equal(secrets.scrub('nothing here'), 'nothing here')
    assert.equal(secrets.scrub(''), '')
  })

  test('knows a configured secret percent-encoded, in base64 and as JSON writes it', () => {
    const secrets = new SecretSet()
    const password = 'p ä"ss/w0rd'
    secrets.add(password)
    for (const form of [
      password,
      encodeURIComponent(password),
      Buffer.from(password).toString('base64'),
      Buffer.from(password).toString('base64url'),
      JSON.stringify({ password }),
    ]) {
      const scrubbed = secrets.scrub(`before ${form} after`)
      assert.ok(scrubbed.includes(REDACTED) && !scrubbed.includes('w0rd'), scrubbed)
    }
  })

  test('leaves values alone that are too short to be secret', () => {
    const secrets = new SecretSet()
    for (const short of ['', 'a', 'abc']) {
      secrets.add(short)
      secrets.addToken(short)
    }
    assert.equal(secrets.scrub('abc a'), 'abc a')
  })

  test('forgets the oldest of 5,000 tokens, never a configured secret, and keeps one that is used again', () => {
    const secrets = new SecretSet()
    secrets.add('token-0')
    for (let n = 0; n < 5000; n++) secrets.addToken(`token-${n}x`)
    secrets.addToken('token-0x')
    for (let n = 5000; n < 6000; n++) secrets.addToken(`token-${n}x`)
    assert.equal(secrets.scrub('token-1x'), 'token-1x')
    assert.equal(secrets.scrub('token-0x'), REDACTED)
    assert.equal(secrets.scrub('token-1500x'), REDACTED)
    assert.equal(secrets.scrub('token-5999x'), REDACTED)
    for (let n = 6000; n < 12_000; n++) secrets.addToken(`token-${n}x`)
    assert.equal(secrets.scrub('token-0'), REDACTED)
  })

  test('knows an issued secret in the same forms, and forgets them with it', () => {
    const secrets = new SecretSet()
    const password = 'p ä"ss/w0rd'
    const said = `${encodeURIComponent(password)} ${Buffer.from(password).toString('base64')}`
    secrets.addToken(password)
    assert.equal(secrets.scrub(said), `${REDACTED} ${REDACTED}`)
    for (let n = 0; n < 5000; n++) secrets.addToken(`token-${n}`)
    assert.equal(secrets.scrub(said), said)
  })

  test('a token that equals a configured secret does not take it along when it goes', () => {
    const secrets = new SecretSet()
    secrets.add('the-same')
    secrets.addToken('the-same')
    for (let n = 0; n < 5001; n++) secrets.addToken(`token-${n}`)
    assert.equal(secrets.scrub('the-same'), REDACTED)
  })

  test('leaves no beginning of a secret at the end of a text that was cut', () => {
    const secrets = new SecretSet()
    secrets.add('s3cret-value')
    for (let tail = 1; tail < 12; tail++) {
      const text = `${'x'.repeat(16_384 - tail)}s3cret-value and more`
      assert.ok(!secrets.scrub(text).includes('s3cret'), String(tail))
      assert.ok(secrets.scrub(text).length <= 16_384 + REDACTED.length)
    }
  })

  test('no registered value survives, whatever surrounds it', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ minLength: 4, maxLength: 20 }), { minLength: 1, maxLength: 5 }),
        fc.string(),
        fc.string(),
        (values, before, after) => {
          // What the replacement itself contains can stand there again.
          fc.pre(values.every((value) => !REDACTED.includes(value) && !value.includes('[') && !value.includes(']')))
          const secrets = new SecretSet()
          for (const value of values) secrets.add(value)
          const scrubbed = secrets.scrub(`${before}${values.join(after)}${after}`)
          for (const value of values) assert.ok(!scrubbed.replaceAll(REDACTED, '[]').includes(value))
        },
      ),
    )
  })

  test('finds one token of thousands wherever it stands in a long line', () => {
    const secrets = new SecretSet()
    for (let n = 0; n < 5000; n++) secrets.addToken(`eyJhbGciOiJSUzI1NiJ9.${n}.`)
    const words = `GET /v2/library/alpine/blobs/sha256:${'a'.repeat(64)} `.repeat(10)
    for (const n of [0, 2500, 4999]) {
      assert.equal(secrets.scrub(`${words}eyJhbGciOiJSUzI1NiJ9.${n}. ${words}`), `${words}${REDACTED} ${words}`)
    }
  })
})
