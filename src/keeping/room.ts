/** Room on the disk: what is held, what was promised to bodies on their way in, and what the limits leave. */
import { excessOver, type Excess } from './policy.ts'
import type { KeptNamespace } from './namespace.ts'
import { expectedDiskBytes } from './usage.ts'

export interface RoomLimits {
  /** Most bytes of all namespaces together; Infinity: no limit. */
  readonly quotaBytes: number
  /** Bytes that stay free on the disk. */
  readonly freeFloorBytes: number
}

/** Room set aside for a body; dispose it once the body is held or given up. */
export interface Reservation extends Disposable {
  /** Says how much of it is not on the disk yet; without it all of it counts as missing. */
  track(missingBytes: () => number): void
}

interface Promised {
  readonly namespace: string
  readonly bytes: number
  missingBytes: () => number
}

/** Below a limit that was reached: so much room is made that the next bodies need not wait. */
export const LOW_SHARE = 0.9

export class Room {
  readonly #limits: RoomLimits
  readonly #namespaces: ReadonlyMap<string, KeptNamespace>
  readonly #promised = new Set<Promised>()

  constructor(limits: RoomLimits, namespaces: ReadonlyMap<string, KeptNamespace>) {
    this.#limits = limits
    this.#namespaces = namespaces
  }

  /** Whether a body of this size could be held if everything else went. */
  couldHold(namespace: KeptNamespace, bytes: number): boolean {
    return bytes <= Math.min(namespace.quotaBytes, this.#limits.quotaBytes)
  }

  /** Sets `bytes` aside; undefined when they do not fit. Nothing can come in between: `free` was asked just before. */
  tryReserve(namespace: KeptNamespace, bytes: number, free: number): Reservation | undefined {
    if (hasExcess(this.excessFor(namespace, bytes, free))) return undefined
    const promised: Promised = { namespace: namespace.name, bytes: expectedDiskBytes(bytes), missingBytes: () => bytes }
    this.#promised.add(promised)
    return {
      track: (missingBytes) => void (promised.missingBytes = missingBytes),
      [Symbol.dispose]: () => void this.#promised.delete(promised),
    }
  }

  /** What must go so that exactly `bytes` more fit. `free`: bytes free on the disk. */
  excessFor(namespace: KeptNamespace, bytes: number, free: number): Excess {
    const needed = expectedDiskBytes(bytes)
    const missing = [...this.#promised].reduce((sum, each) => sum + each.missingBytes(), 0)
    return {
      namespaces: new Map([[namespace.name, excessOver(this.#gaugeOf(namespace), needed, 1)]]),
      inAll: excessOver(this.#gaugeInAll(), needed, 1),
      free: this.#limits.freeFloorBytes + missing + needed - free,
    }
  }

  /** What must go to get below every limit that is exceeded; of those in `pressed` also when it is only reached. */
  excess(free: number, isPressed: boolean): Excess {
    const over = (gauge: Gauge): number =>
      isPressed ? gauge.used + gauge.promised - Math.floor(gauge.quota * LOW_SHARE) : excessOver(gauge, 0, LOW_SHARE)
    const { freeFloorBytes: floor } = this.#limits
    return {
      namespaces: new Map([...this.#namespaces.values()].map((each) => [each.name, over(this.#gaugeOf(each))])),
      inAll: over(this.#gaugeInAll()),
      free: free < floor ? floor + Math.ceil(floor * (1 - LOW_SHARE)) - free : 0,
    }
  }

  /** Whether what is held is too much already, whatever is promised. */
  isOverfull(namespace: KeptNamespace): boolean {
    return namespace.usage.bytes > namespace.quotaBytes || this.#gaugeInAll().used > this.#limits.quotaBytes
  }

  /** Whether the disk is so full of what is not ours that giving up all that is held would not reach the floor. */
  isHopeless({ free }: Excess): boolean {
    return free > 0 && free > this.#gaugeInAll().used
  }

  #gaugeOf({ name, usage, quotaBytes }: KeptNamespace): Gauge {
    const own = [...this.#promised].filter(({ namespace }) => namespace === name)
    return { used: usage.bytes, promised: own.reduce((sum, { bytes }) => sum + bytes, 0), quota: quotaBytes }
  }

  #gaugeInAll(): Gauge {
    return {
      used: [...this.#namespaces.values()].reduce((sum, { usage }) => sum + usage.bytes, 0),
      promised: [...this.#promised].reduce((sum, { bytes }) => sum + bytes, 0),
      quota: this.#limits.quotaBytes,
    }
  }
}

type Gauge = Parameters<typeof excessOver>[0]

/** Whether anything has to go. */
export function hasExcess({ namespaces, inAll, free }: Excess): boolean {
  return inAll > 0 || free > 0 || namespaces.values().some((bytes) => bytes > 0)
}
