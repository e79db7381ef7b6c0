/**
 * JSON from strangers. The text is scanned once before `JSON.parse` sees it, so that neither nesting nor a huge list (nor
 * a huge object of colliding keys) costs more than its bytes do.
 */

export interface JsonLimits {
  /** Longest text in bytes. */
  readonly maxBytes: number
  /** Deepest nesting of arrays and objects together. */
  readonly maxDepth: number
  /** Most entries of one array, or members of one object. */
  readonly maxEntries: number
}

/** A JSON value, read with own-property checks only. `undefined` never stands in it, so it can mean "refused". */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject
export interface JsonObject {
  readonly [key: string]: JsonValue
}

const QUOTE = 0x22
const COMMA = 0x2c
const BACKSLASH = 0x5c
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

/**
 * Parses `bytes` as one JSON text. Undefined, never an error, when it is no JSON, no valid UTF-8, begins with a byte
 * order mark (RFC 8259 section 8.1), or passes a limit. Time is linear in the length.
 */
export function parseBoundedJson(bytes: Uint8Array, limits: JsonLimits): JsonValue | undefined {
  if (bytes.length > limits.maxBytes || !isWithin(bytes, limits)) return undefined
  try {
    // ignoreBOM keeps a leading mark in the text, where JSON.parse refuses it; the default would drop it silently.
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return JSON.parse(text) as JsonValue
  } catch {
    return undefined
  }
}

/** An object that is neither null nor an array. */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The member `key` of the object itself: what its prototype has, or a null, is undefined. */
export function ownMember(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined
}

/**
 * Counts nesting and entries without building anything. Malformed text may pass here: `JSON.parse` refuses it. Bytes of
 * a multi-byte character are all above 0x7f, so they never look like structure.
 */
function isWithin(bytes: Uint8Array, { maxDepth, maxEntries }: JsonLimits): boolean {
  const entries = new Uint32Array(maxDepth + 1)
  let depth = 0
  let inString = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]
    if (inString) {
      if (byte === BACKSLASH) at++
      else if (byte === QUOTE) inString = false
    } else if (byte === QUOTE) {
      inString = true
    } else if (byte === COMMA) {
      const count = (entries[depth] ?? 0) + 1
      if (count > maxEntries) return false
      entries[depth] = count
    } else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) {
      if (++depth > maxDepth) return false
      // The first entry has no comma before it.
      entries[depth] = 1
    } else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) {
      if (--depth < 0) return false
    }
  }
  return true
}
