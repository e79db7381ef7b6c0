/** Exit codes of every command. */
export const EXIT = {
  ok: 0,
  /** It could not be done, or what was checked is not right. */
  failure: 1,
  /** The command line or the configuration is wrong: nothing was tried. */
  usage: 2,
} as const
