import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { EVENTS } from '../../../src/telemetry/events.ts'
import { createLog, type LogOptions } from '../../../src/telemetry/log.ts'
import { formatLine } from '../../../src/telemetry/pretty.ts'
import { SecretSet } from '../../../src/telemetry/redact.ts'

class Lines {
  writableLength = 0
  readonly text: string[] = []
  write(line: string): void {
    this.text.push(line)
  }
  get json(): Record<string, unknown>[] {
    return this.text.map((line) => JSON.parse(line) as Record<string, unknown>)
  }
}

function open(options: LogOptions = {}): { lines: Lines; log: ReturnType<typeof createLog> } {
  const lines = new Lines()
  return { lines, log: createLog({ destination: lines, ...options }) }
}

const stale = {
  upstream: 'docker.io',
  repository: 'library/alpine',
  reference: 'latest',
  code: 'UPSTREAM_ERROR',
  reason: 'HEAD: 503',
} as const

describe('the log', () => {
  test('writes one JSON line an event, with time, level and the fields', () => {
    const { lines, log } = open()
    log.event('tag.served_stale', stale)
    assert.equal(lines.text.length, 1)
    assert.ok(lines.text[0]?.endsWith('}\n'))
    const { time, ...rest } = lines.json[0] ?? {}
    assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    assert.deepEqual(rest, { level: 'warn', event: 'tag.served_stale', ...stale })
  })

  test('writes nothing below its level, and says so beforehand', () => {
    const { lines, log } = open({ level: 'warn' })
    log.event('endpoint.closed', { upstream: 'a', endpoint: 'b' })
    assert.equal(lines.text.length, 0)
    assert.equal(log.isEnabled('info'), false)
    assert.equal(log.isEnabled('error'), true)
    const silent = open({ level: 'silent' })
    silent.log.event('tag.served_stale', stale)
    assert.equal(silent.lines.text.length, 0)
  })

  test('leaves out undefined fields and those the table does not list', () => {
    const { lines, log } = open()
    const wider = { reason: 'broken', requestId: undefined, password: 'hunter2' }
    log.event('defect.caught', wider)
    assert.deepEqual(Object.keys(lines.json[0] ?? {}).toSorted(), ['event', 'level', 'reason', 'time'])
  })

  test('is checked by the compiler', () => {
    const { log } = open()
    // @ts-expect-error: no such event
    assert.throws(() => log.event('tag.unknown', {}))
    // @ts-expect-error: a field is missing
    log.event('endpoint.closed', { upstream: 'a' })
    // @ts-expect-error: a field has another type
    log.event('endpoint.closed', { upstream: 'a', endpoint: 1 })
    // @ts-expect-error: no such field
    log.event('endpoint.closed', { upstream: 'a', endpoint: 'b', url: 'c' })
  })

  test('scrubs secrets from texts, also those it learns later, and cuts long ones', () => {
    const secrets = new SecretSet()
    const { lines, log } = open({ secrets })
    secrets.addToken('canary-token-1')
    log.event('ledger.failed', { reason: `got canary-token-1 ${'x'.repeat(5000)}` })
    const message = String(lines.json[0]?.['reason'])
    assert.match(message, /^got \[redacted\] x+…$/)
    assert.ok(message.length < 2100)
  })

  test('keeps a line a line, whatever a field holds', () => {
    for (const pretty of [false, true]) {
      const { lines, log } = open({ pretty })
      log.event('ledger.failed', { reason: 'one\r\ntwo \u001b[31m \u009b31m \u2028 \u202e three\ud800' })
      assert.equal(lines.text.join('').split(pretty ? /[\r\n\u2028]/ : /[\r\n]/).length, 2)
      if (pretty) assert.doesNotMatch(stripVTControlCharacters(lines.text[0] ?? ''), /[\p{Cf}\u0080-\u009f]/u)
    }
  })

  test('drops lines while its queue is full, counts them, and says so when there is room', () => {
    const { lines, log } = open({ maxQueuedBytes: 100 })
    lines.writableLength = 101
    for (let n = 0; n < 3; n++) log.event('tag.served_stale', stale)
    assert.equal(lines.text.length, 0)
    assert.equal(log.dropped, 3)
    lines.writableLength = 0
    log.event('tag.served_stale', stale)
    assert.deepEqual(
      lines.json.map(({ event, lines: dropped }) => [event, dropped]),
      [
        ['log.dropped', 3],
        ['tag.served_stale', undefined],
      ],
    )
    assert.equal(log.dropped, 3)
  })

  test('survives a destination that fails', () => {
    const failing = {
      write: () => {
        throw new Error('ENOSPC')
      },
    }
    const log = createLog({ destination: failing })
    log.event('tag.served_stale', stale)
    assert.equal(log.dropped, 1)
  })

  test('a stdout that nobody reads blocks nothing, and one that goes away ends nothing', async () => {
    const child = spawn(process.execPath, [new URL('./flood.ts', import.meta.url).pathname], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let told = ''
    child.stderr.on('data', (chunk) => {
      told += String(chunk)
      if (told.includes('flooded')) child.stdout.destroy()
    })
    const [code] = (await once(child, 'exit')) as [number]
    assert.equal(code, 0, told)
    const [, dropped] = /flooded in \d+ ms, (\d+) dropped/.exec(told) ?? []
    assert.ok(Number(dropped) > 1000, told)
    assert.match(told, /still alive/)
  })
})

describe('a readable line', () => {
  const plain = (line: object): string => stripVTControlCharacters(formatLine(JSON.stringify(line)))
  const table: [line: object, shown: string][] = [
    [
      { level: 'info', time: '2026-01-01T12:34:56.789Z', event: 'request.done', method: 'GET', status: 200, ok: true },
      '12:34:56.789 info  request.done method=GET status=200 ok=true\n',
    ],
    [{ level: 'error', time: 't', event: 'x', reason: 'two words', none: '' }, ' error x reason="two words" none=""\n'],
    [{ event: 'x', quote: 'a"b\n', esc: '\u001b[2J\u009b' }, '       x quote="a\\"b\\n" esc="\\u001b[2J\\u009b"\n'],
  ]
  for (const [line, shown] of table) test(shown.trim(), () => assert.equal(plain(line), shown))

  test('that is no JSON is shown without control characters', () => {
    assert.equal(formatLine('plain \u001b[31m text\n'), 'plain \\u001b[31m text\n')
    assert.equal(formatLine('[1'), '[1\n')
  })
})

test('every event is noun.verb and has a level', () => {
  for (const [name, { level, fields }] of Object.entries(EVENTS)) {
    assert.match(name, /^[a-z]+\.[a-z_]+$/)
    assert.ok(['debug', 'info', 'warn', 'error'].includes(level))
    for (const field of Object.keys(fields)) assert.match(field, /^[a-z][A-Za-z]*$/)
    for (const reserved of ['time', 'level', 'event', 'msg']) assert.ok(!(reserved in fields), `${name}.${reserved}`)
  }
})
