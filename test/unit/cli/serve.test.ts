import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { runProgram } from '../../../src/cli/program.ts'
import { GatewayError } from '../../../src/errors.ts'
import { TestConfiguration } from '../config/configuration.ts'
import { TestProcess, TestRuntime, testWorld, type TestWorld } from './stand-ins.ts'

interface Run {
  readonly world: TestWorld
  readonly events: TestProcess
  readonly runtime: TestRuntime
  readonly exitCode: Promise<number>
}

function run(
  folder: TestConfiguration,
  words: readonly string[],
  prepare: (runtime: TestRuntime) => void = () => undefined,
): Run {
  const world = testWorld(folder.folder)
  const events = new TestProcess()
  const runtime = new TestRuntime()
  prepare(runtime)
  const exitCode = runProgram({ arguments: words, openRuntime: () => Promise.resolve(runtime), world, events })
  return { world, events, runtime, exitCode }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}

describe('serve', () => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    it(`drains on ${signal}, exits with 0 and leaves no handler behind`, async () => {
      using folder = new TestConfiguration()
      const { events, runtime, exitCode, world } = run(folder, ['serve'])
      await until(() => world.err.text.includes('Pull through it'))
      events.emit(signal)
      assert.equal(await exitCode, 0)
      assert.deepEqual(runtime.closed, [signal])
      assert.deepEqual(runtime.events, ['gateway.stopping'])
      assert.deepEqual(events.eventNames(), [])
    })
  }

  it('exits at once with 128 + its number on a second signal', async () => {
    using folder = new TestConfiguration()
    const drained = Promise.withResolvers<void>()
    const { events, runtime, exitCode } = run(folder, ['serve'], (prepared) => {
      prepared.onClose = () => drained.promise
    })
    await until(() => runtime.started.length === 1 && events.listenerCount('SIGTERM') === 1)
    events.emit('SIGTERM')
    await until(() => runtime.closed.length === 1)
    assert.deepEqual(events.exits, [])
    events.emit('SIGINT')
    assert.deepEqual(events.exits, [130])
    drained.resolve()
    assert.equal(await exitCode, 0)
  })

  it('hears a signal that comes while it still starts', async () => {
    using folder = new TestConfiguration()
    const started = run(folder, ['serve'])
    // The command has not got further than its first wait yet.
    started.runtime.onStart = () => void started.events.emit('SIGTERM')
    assert.equal(await started.exitCode, 0)
    assert.deepEqual(started.runtime.closed, ['SIGTERM'])
  })

  it('ends a start under way on SIGTERM, which lets go of what it holds', async () => {
    using folder = new TestConfiguration()
    const { events, runtime, exitCode, world } = run(folder, ['serve'], (prepared) => {
      prepared.onStart = ({ signal }) =>
        new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    })
    await until(() => runtime.started.length === 1)
    events.emit('SIGTERM')
    assert.equal(await exitCode, 0)
    assert.deepEqual([runtime.closed, events.eventNames()], [[], []])
    assert.doesNotMatch(world.err.text, /cannot start|Pull through it/)
  })

  it('ends on SIGTERM although the start stands in a call that nothing ends', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    using folder = new TestConfiguration()
    const { events, runtime, exitCode } = run(folder, ['serve'], (prepared) => {
      prepared.onStart = () => new Promise(() => undefined)
    })
    await until(() => runtime.started.length === 1)
    events.emit('SIGTERM')
    await until(() => runtime.started[0]?.signal?.aborted === true)
    t.mock.timers.tick(60_000)
    assert.equal(await exitCode, 0)
  })

  it('goes on after SIGHUP and says so in the log', async () => {
    using folder = new TestConfiguration()
    const { events, runtime, exitCode, world } = run(folder, ['serve'])
    await until(() => world.err.text.includes('Pull through it'))
    events.emit('SIGHUP')
    await turn()
    assert.deepEqual([runtime.events, runtime.closed], [['config.warned'], []])
    events.emit('SIGTERM')
    assert.equal(await exitCode, 0)
  })

  for (const event of ['uncaughtException', 'unhandledRejection']) {
    it(`logs an ${event}, closes without draining and exits with 1`, async () => {
      using folder = new TestConfiguration()
      const { events, runtime, exitCode, world } = run(folder, ['serve'])
      await until(() => world.err.text.includes('Pull through it'))
      events.emit(event, new Error('a defect'))
      assert.equal(await exitCode, 1)
      assert.deepEqual([runtime.events, runtime.closed], [['defect.caught'], ['failure']])
    })
  }

  it('starts nothing with a wrong configuration: every problem on standard error, exit code 2', async () => {
    using folder = new TestConfiguration({ 'entrepot.yaml': 'lisen: 1\ndrain: { delay: 5 }\n' })
    const { runtime, exitCode, world } = run(folder, ['serve'])
    assert.equal(await exitCode, 2)
    assert.deepEqual(runtime.started, [])
    assert.equal(
      world.err.text,
      [
        'entrepot.yaml:1:1 lisen: is no known key; did you mean listen?',
        'entrepot.yaml:2:10 drain.delay: 5 has no unit, write for example 5s (units: ms, s, m, h or d)',
        '2 problems in the configuration',
        '',
      ].join('\n'),
    )
    assert.equal(world.out.text, '')
  })

  const refusals: [GatewayError | Error, number, RegExp][] = [
    [new GatewayError('CONFIG_INVALID', 'a.yaml:1:1: taken'), 2, /^entrepot cannot start: a\.yaml:1:1: taken\n$/],
    [
      new GatewayError('PORT_UNAVAILABLE', 'listen on :5000: in use'),
      1,
      /^entrepot cannot start: listen on :5000: in use\n$/,
    ],
    [new TypeError('x is undefined'), 1, /TypeError: x is undefined\n {4}at /],
  ]
  for (const [error, code, text] of refusals) {
    it(`exits with ${code} when the gateway refuses to start: ${error.message}`, async () => {
      using folder = new TestConfiguration()
      const { exitCode, world } = run(folder, ['serve'], (prepared) => {
        prepared.onStart = () => Promise.reject(error)
      })
      assert.equal(await exitCode, code)
      assert.match(world.err.text, text)
    })
  }

  it('hands --config and --data on', async () => {
    using folder = new TestConfiguration({ 'etc/e.yaml': 'upstreams: ../upstreams.d\n' })
    const { events, runtime, exitCode } = run(folder, ['serve', '--config', 'etc/e.yaml', '--data', 'cache'])
    await until(() => runtime.started.length === 1)
    events.emit('SIGTERM')
    await exitCode
    assert.equal(runtime.started[0]?.config.data, `${folder.folder}/cache`)
    assert.equal(runtime.started[0]?.version, '1.2.3')
  })
})

describe('the banner', () => {
  async function banner(files: Readonly<Record<string, string>>): Promise<string> {
    using folder = new TestConfiguration(files)
    const { events, exitCode, world } = run(folder, ['serve'])
    await until(() => world.err.text.includes('UPSTREAM'))
    events.emit('SIGTERM')
    await exitCode
    return world.err.text.replaceAll(folder.folder, 'FOLDER')
  }

  it('says where it listens, what it serves under which names, and what to paste', async () => {
    const text = await banner({
      'entrepot.yaml': 'listen: { address: "127.0.0.1:5000", default: docker.io }',
      'upstreams.d/docker.io.yaml': 'url: https://registry-1.docker.io\nroutes: { port: 5001 }',
      'upstreams.d/corp.yaml':
        'url: https://corp.example\nroutes: { hosts: [corp.mirror], prefix: c }\naccess: shared\nauth: { helper: x }',
      'upstreams.d/off.yaml': 'url: https://off.example\noffline: true',
    })
    assert.equal(
      text,
      `
entrepot 1.2.3

  pull       http://127.0.0.1:5000  every upstream, by its name in the path or in ns=; else docker.io
  admin      http://127.0.0.1:5080  /livez /readyz /metrics
  data       FOLDER/data
  upstreams  FOLDER/upstreams.d/*.yaml

  UPSTREAM   ALONE AT               ACCESS                                ALSO CALLED
  corp       corp.mirror            credentials, shared with all clients  c
  docker.io  http://127.0.0.1:5001  anonymous                             registry-1.docker.io index.docker.io registry.hub.docker.com
  off        -                      offline                               -

  Pull through it:

    docker pull localhost:5000/library/alpine
    docker pull localhost:5000/corp/ORG/IMAGE:TAG

`,
    )
  })

  it('names the host in the line to paste where it is not this machine', async () => {
    const text = await banner({ 'entrepot.yaml': 'listen: { address: "10.1.2.3:80" }' })
    assert.match(text, /docker pull 10\.1\.2\.3:80\/ghcr\.io\/ORG\/IMAGE:TAG/)
    assert.match(text, /by its name in the path or in ns=\n/)
  })
})
