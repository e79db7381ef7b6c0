/** The thread that checks passwords: a check is a tenth of a second of arithmetic, which no loop that serves can spare. */
import { parentPort } from 'node:worker_threads'
import bcrypt from 'bcryptjs'

export interface CheckRequest {
  readonly password: string
  readonly hash: string
}

/** Undefined: the check failed by itself. */
export interface CheckReply {
  readonly isRight: boolean | undefined
}

parentPort?.on('message', ({ password, hash }: CheckRequest) => {
  parentPort?.postMessage({ isRight: check(password, hash) } satisfies CheckReply)
})

function check(password: string, hash: string): boolean | undefined {
  try {
    return bcrypt.compareSync(password, hash)
  } catch {
    return undefined
  }
}
