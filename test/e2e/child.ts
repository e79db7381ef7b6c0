// A part of a test in a process of its own, so that it does not share a processor thread with what it measures: started by
// `startChild`, it answers each question with one message.

import { fork } from 'node:child_process'
import { once } from 'node:events'

export interface Child<Question, Answer> extends AsyncDisposable {
  /** One at a time. Rejects when the child ends or throws instead. */
  readonly ask: (question: Question) => Promise<Answer>
}

/** Starts a TypeScript file that calls `answerParent`. Messages cross as JSON. */
export function startChild<Question extends object, Answer>(file: URL): Child<Question, Answer> {
  const child = fork(file, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const ended = once(child, 'exit').then(([code]: unknown[]) => {
    throw new Error(`${file.pathname} ended with ${String(code)}`)
  })
  ended.catch(() => undefined)
  return {
    ask: async (question) => {
      const answered = once(child, 'message')
      child.send(question)
      const [answer] = (await Promise.race([answered, ended])) as [Answer]
      return answer
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await ended.catch(() => undefined)
    },
  }
}

/** In the child: answers every question until the parent goes away. */
export function answerParent<Question, Answer>(answer: (question: Question) => Promise<Answer>): void {
  process.on('disconnect', () => process.exit(0))
  process.on('message', (question: Question) => {
    void answer(question).then((answered) => process.send?.(answered))
  })
}

/** Epoch milliseconds with fractions, comparable between processes of one machine to about a millisecond. */
export function timeNow(): number {
  return performance.timeOrigin + performance.now()
}
