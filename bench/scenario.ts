// What a scenario is, and the two ways to run one: peers that stay warm, and a peer with an empty cache each time. Both
// interleave the peers, so that what else the machine does meets all of them alike.

import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Image } from './image.ts'
import type { Lab, Peer } from './lab.ts'
import type { PeerName } from './peers.ts'
import type { Results, RowKey } from './results.ts'
import type { Usage } from './server-process.ts'

export interface Scenario {
  /** As `--only` names it. */
  readonly name: string
  readonly title: string
  readonly run: (bench: Bench) => Promise<void>
}

export interface BenchOptions {
  readonly rounds: number
  /** Seconds of each load of small replies. */
  readonly seconds: number
  /** Factor on the size of large blobs; 1 for figures worth keeping. */
  readonly scale: number
  readonly peers: readonly PeerName[]
}

/** One sample of a scenario on one peer. */
export interface Turn {
  readonly name: PeerName
  readonly peer: Peer
  readonly record: (key: RowKey, value: number) => void
}

/** After a pull: background fills end, links are synced, before anything is timed or counted. */
const SETTLE_MS = 700

/** What a scenario runs with. */
export class Bench {
  readonly lab: Lab
  readonly options: BenchOptions
  readonly #scenario: string
  readonly #results: Results
  readonly #say: (text: string) => void
  readonly #failed = new Set<PeerName>()

  constructor(scenario: string, lab: Lab, options: BenchOptions, results: Results, say: (text: string) => void) {
    this.#scenario = scenario
    this.lab = lab
    this.options = options
    this.#results = results
    this.#say = say
  }

  /** Bytes of a large blob, at the run's scale. */
  bytes(full: number): number {
    return Math.max(1, Math.round(full * this.options.scale))
  }

  /** Hot: every peer is started once and holds `image`, whose bytes are checked as they come in and once more when held. */
  async hot(image: Image, measure: (turn: Turn) => Promise<void>): Promise<void> {
    await using started = new AsyncDisposableStack()
    const turns: Turn[] = []
    for (const name of this.#peers('entrepot', 'stock', 'static')) {
      await this.#attempt(name, async () => {
        const peer = started.use(await this.lab.startPeer(name))
        await this.#fill(name, peer, image)
        turns.push(this.#turn(name, peer))
      })
    }
    for (let round = 1; round <= this.options.rounds; round++) {
      for (const turn of turns) await this.#attempt(turn.name, () => measure(turn), round)
    }
  }

  /**
   * Cold: each sample has a peer of its own that holds nothing of what is measured. It has given the small image once: a
   * gateway that runs for weeks is cold to an image, not to its own code. `start` measures what the first pull costs.
   */
  async cold(names: readonly PeerName[], measure: (turn: Turn) => Promise<void>): Promise<void> {
    for (let round = 1; round <= this.options.rounds; round++) {
      for (const name of this.#peers(...names)) {
        await this.#attempt(name, () => this.#onNewPeer(name, (turn) => this.#warmed(turn, measure)), round)
      }
    }
  }

  /** Each sample has a peer that has just started and was asked nothing yet. */
  async fresh(names: readonly PeerName[], measure: (turn: Turn) => Promise<void>): Promise<void> {
    for (let round = 1; round <= this.options.rounds; round++) {
      for (const name of this.#peers(...names)) {
        await this.#attempt(name, () => this.#onNewPeer(name, measure), round)
      }
    }
  }

  /** The pass that is not timed: `clients` clients hash what an empty cache gives them, then what a full one does. */
  async check(names: readonly PeerName[], image: Image, clients: number): Promise<void> {
    for (const name of this.#peers(...names)) {
      await this.#attempt(name, () =>
        this.#onNewPeer(name, async ({ peer }) => {
          await this.#hash(peer, image, clients)
          await this.settle()
          await this.#hash(peer, image, clients)
        }),
      )
    }
  }

  /** Lets background work of a pull end. */
  async settle(): Promise<void> {
    await delay(SETTLE_MS)
  }

  async #onNewPeer(name: PeerName, measure: (turn: Turn) => Promise<void>): Promise<void> {
    await using peer = await this.lab.startPeer(name)
    await measure(this.#turn(name, peer))
  }

  async #warmed(turn: Turn, measure: (turn: Turn) => Promise<void>): Promise<void> {
    const { upstream } = this.lab
    if (turn.name !== 'direct') {
      const { warmUp } = upstream
      await this.#hash(turn.peer, warmUp, 1)
      await this.settle()
      await this.#hash(turn.peer, warmUp, 1)
      turn.peer.resetPeak()
    }
    await upstream.takeCounts()
    await measure(turn)
  }

  #peers(...wanted: readonly PeerName[]): readonly PeerName[] {
    return wanted.filter((name) => this.options.peers.includes(name) && !this.#failed.has(name))
  }

  #turn(name: PeerName, peer: Peer): Turn {
    return { name, peer, record: (key, value) => this.#results.record(this.#scenario, key, name, value) }
  }

  /** A peer that fails is named and left out of the rest of the scenario; the others go on. */
  async #attempt(name: PeerName, act: () => Promise<void>, round?: number): Promise<void> {
    this.lab.signal.throwIfAborted()
    if (this.#failed.has(name)) return
    try {
      await act()
      if (round !== undefined) this.#say(`${this.#scenario}: round ${round} of ${this.options.rounds}, ${name}`)
    } catch (error) {
      this.lab.signal.throwIfAborted()
      const message = error instanceof Error ? error.message : String(error)
      this.#failed.add(name)
      this.#results.failures.push({ scenario: this.#scenario, peer: name, message })
      this.#say(`${this.#scenario}: ${name} FAILED: ${message}`)
    }
  }

  async #fill(name: PeerName, peer: Peer, image: Image): Promise<void> {
    if (name === 'static') await copyImage(this.lab.upstream.url, image, join(peer.folder, 'files'))
    else await this.#hash(peer, image, 1)
    await this.settle()
    await this.#hash(peer, image, 1)
    peer.resetPeak()
  }

  async #hash(peer: Peer, image: Image, clients: number): Promise<void> {
    const { address } = peer
    await this.lab.pull({ kind: 'pull', address, image, clients, connections: 3, hash: true })
  }
}

/** What a server used while `act` ran. */
export async function usageDuring<T>(
  peer: Peer,
  act: () => Promise<T>,
): Promise<{ result: T; seconds: number; after: Usage }> {
  const before = peer.usage()
  const result = await act()
  const after = peer.usage()
  return { result, seconds: after.processorSeconds - before.processorSeconds, after }
}

/** Lays an image out as files under the paths that clients ask for. */
async function copyImage(upstreamUrl: string, image: Image, folder: string): Promise<void> {
  for (const path of pathsOf(image)) {
    const response = await fetch(`${upstreamUrl}${path}`)
    const file = join(folder, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, Buffer.from(await response.arrayBuffer()))
  }
}

function pathsOf(image: Image): readonly string[] {
  const { repository, tag, manifest, config, layers } = image
  const references = [tag, manifest.digest].map((reference) => `/v2/${repository}/manifests/${reference}`)
  return [...references, ...[config, ...layers].map((part) => `/v2/${repository}/blobs/${part.digest}`)]
}
