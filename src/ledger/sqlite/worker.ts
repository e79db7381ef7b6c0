/** Entry of the ledger's worker thread: messages in, answers out, one at a time. Nothing that fails here ends it. */
import { parentPort, workerData } from 'node:worker_threads'
import { GatewayError } from '../../errors.ts'
import { Facts } from './facts.ts'
import type { FromWorker, ProblemTopic, ToWorker, WorkerOptions } from './messages.ts'
import { isCorruption, messageOf, openDatabase } from './open-database.ts'

function serve(port: NonNullable<typeof parentPort>, { path }: WorkerOptions): void {
  const post = (message: FromWorker): void => port.postMessage(message)
  const report = (topic: ProblemTopic, message: string): void => post({ kind: 'problem', topic, message })
  const open = (): Facts => new Facts(openDatabase({ path, now: Date.now(), report }))

  let facts: Facts
  try {
    facts = open()
  } catch (error) {
    const code = error instanceof GatewayError ? error.code : 'STORE_UNUSABLE'
    post({ kind: 'unusable', code, message: messageOf(error) })
    return
  }

  /** Undefined when it failed. A database found corrupt on the way is moved aside and begun anew. */
  const attempt = <T>(topic: ProblemTopic, work: () => T): T | undefined => {
    try {
      return work()
    } catch (error) {
      if (!isCorruption(error)) report(topic, `ledger ${path}: ${topic} failed: ${messageOf(error)}`)
      else facts = reopen(error)
      return undefined
    }
  }
  const reopen = (error: unknown): Facts => {
    report('corrupt', `ledger ${path}: found corrupt while in use: ${messageOf(error)}`)
    try {
      facts.close()
    } catch {
      // It is being moved away: what could not be written into it is lost anyway.
    }
    return open()
  }

  port.on('message', (message: ToWorker) => {
    switch (message.kind) {
      case 'batch':
        attempt('write', () => facts.apply(message.batch))
        post({ kind: 'applied', rows: message.batch.rows })
        return
      case 'read':
        post({ kind: 'answer', id: message.id, value: attempt('read', () => facts.answer(message.read)) })
        return
      case 'flush':
        attempt('write', () => facts.checkpoint())
        post({ kind: 'answer', id: message.id, value: undefined })
        return
      case 'close':
        attempt('write', () => facts.close())
        post({ kind: 'answer', id: message.id, value: undefined })
        port.close()
    }
  })
  post({ kind: 'ready' })
}

// The one file of the ledger that acts when it is loaded: loading it is how a worker starts.
if (parentPort) serve(parentPort, workerData as WorkerOptions)
