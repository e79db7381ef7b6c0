// Programs of the bench that run in processes of their own, asked one question at a time over Node's IPC channel.
// A child ends with its parent, whatever ended that.

import { type ChildProcess, fork } from 'node:child_process'

type Answer<Reply> = { readonly reply: Reply } | { readonly error: string }

function isAnswer<Reply>(value: unknown): value is Answer<Reply> {
  return typeof value === 'object' && value !== null && ('reply' in value || 'error' in value)
}

/** A child program that answers `Question`s with `Reply`s. Dispose ends it. */
export class ChildProgram<Question extends object, Reply> implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #name: string
  #isAsked = false

  /** Starts `file`, which lies beside this one. Its own output goes to standard error. */
  constructor(file: string) {
    this.#name = file
    this.#process = fork(new URL(file, import.meta.url), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  }

  get pid(): number {
    return this.#process.pid ?? -1
  }

  /** One question at a time. Rejects with the child's own error, or when it ends or takes longer than `timeoutMs`. */
  async ask(question: Question, timeoutMs = 120_000): Promise<Reply> {
    if (this.#isAsked) throw new Error(`${this.#name}: asked again before its answer`)
    this.#isAsked = true
    try {
      const answer = await this.#exchange(question, timeoutMs)
      if ('error' in answer) throw new Error(answer.error)
      return answer.reply
    } finally {
      this.#isAsked = false
    }
  }

  #exchange(question: Question, timeoutMs: number): Promise<Answer<Reply>> {
    const child = this.#process
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        child.off('message', onMessage)
        child.off('exit', onExit)
        act()
      }
      const fail = (why: string): void => settle(() => reject(new Error(`${this.#name}: ${why}`)))
      const onMessage = (message: unknown): void => {
        if (isAnswer<Reply>(message)) settle(() => resolve(message))
        else fail('answered something else')
      }
      const onExit = (code: number | null): void => fail(`ended (${code ?? 'by a signal'}) before its answer`)
      // A late answer would be taken for that of the next question: the child ends with its time.
      const timer = setTimeout(() => {
        child.kill('SIGKILL')
        fail(`no answer after ${timeoutMs} ms`)
      }, timeoutMs)
      child.on('message', onMessage)
      child.on('exit', onExit)
      child.send(question, (error) => {
        if (error !== null) fail(error.message)
      })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#process
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => void child.once('exit', () => resolve()))
    child.kill('SIGKILL')
    await ended
  }
}

/** The child's side: answers every question of the parent in turn and ends when the parent does. */
export function answerParent<Question, Reply>(
  isQuestion: (value: unknown) => value is Question,
  answer: (question: Question) => Promise<Reply>,
): void {
  const respond = async (message: unknown): Promise<Answer<Reply>> => {
    if (!isQuestion(message)) return { error: 'not a question for this program' }
    try {
      return { reply: await answer(message) }
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }
  process.on('message', (message) => {
    void respond(message).then((answered) => process.send?.(answered))
  })
  process.on('disconnect', () => process.exit(0))
}
