/** Room on the disk, as the caches ask for it: nothing is written that was not promised a place. */

/** Room set aside for a body; dispose it once the body is held or given up. */
export interface RoomReservation extends Disposable {
  /** Says how much of it is not on the disk yet; without it all of it counts as missing. */
  track(missingBytes: () => number): void
}

/** Sets `bytes` aside, after evicting where that makes room and `mayEvict` says so. Undefined: there is no room. */
export type ReserveRoom = (
  bytes: number,
  options: { readonly mayEvict: boolean },
) => Promise<RoomReservation | undefined>
