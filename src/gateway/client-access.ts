/** From the configuration to the door of each listener: who may pull, and what. Cut out of `gateway.ts`. */
import { basename, dirname, join } from 'node:path'
import { BcryptThreads } from '../access/bcrypt-threads.ts'
import { ClientAuth } from '../access/client-auth.ts'
import { Door, type UpstreamDoorOptions } from '../access/door.ts'
import { FailureBudget } from '../access/failure-budget.ts'
import { HtpasswdFile } from '../access/htpasswd-file.ts'
import { networkMatcher } from '../access/networks.ts'
import { Passwords } from '../access/passwords.ts'
import type { Clock } from '../async/clock.ts'
import type { Config, ConfigPlaces, ListenerConfig } from '../config/config.ts'
import type { Log } from '../telemetry/log.ts'

export interface ClientAccessOptions {
  readonly config: Config
  readonly places: ConfigPlaces
  readonly clock: Clock
  readonly log: Log
}

/** What all listeners share: passwords with what is remembered of them, and the rules of the upstreams. */
export class ClientAccess implements AsyncDisposable {
  readonly #options: ClientAccessOptions
  readonly #threads = new BcryptThreads()
  readonly #passwords: Passwords | undefined
  readonly #upstreams: ReadonlyMap<string, UpstreamDoorOptions>

  /** Throws CONFIG_INVALID when the htpasswd file cannot be used. */
  constructor(options: ClientAccessOptions) {
    this.#options = options
    const { config, places, clock, log } = options
    const path = config.clients?.htpasswd
    if (path !== undefined) {
      const users = new HtpasswdFile({
        path,
        clock,
        onReload: (count) => log.event('clients.reloaded', { users: count }),
        onProblem: (reason) => log.event('clients.reload_failed', { reason }),
      })
      const isRight = this.#threads.isRight.bind(this.#threads)
      this.#passwords = new Passwords({ users, isRight, failures: new FailureBudget({ clock }), clock })
    }
    this.#upstreams = new Map(
      config.upstreams.map(({ name, allow, deny, clients }) => {
        const file = places.upstream(name, [])?.file ?? name
        return [name, { allow, deny, clients, file: join(basename(dirname(file)), basename(file)) }]
      }),
    )
  }

  doorFor({ tls }: ListenerConfig): Door {
    const { clients } = this.#options.config
    const hasCertificates = tls?.clientCa !== undefined
    if (clients === undefined && !hasCertificates) return new Door({ upstreams: this.#upstreams })
    const auth = new ClientAuth({
      passwords: this.#passwords,
      networks: clients?.networks && networkMatcher(clients.networks),
      hasCertificates,
      require: clients?.require ?? 'all',
      file: basename(this.#options.places.gateway([])?.file ?? 'entrepot.yaml'),
    })
    return new Door({ auth, upstreams: this.#upstreams })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads.close()
  }
}
