/** Sections and lists of the configuration, and how keys carry their description. */
import { z } from 'zod'

/** Marks in the JSON Schema a list that may be written as its only entry; read and removed by `json-schema.ts`. */
export const ONE_OR_MANY = 'x-one-or-many'
/** Likewise a section that may be written as the URL that is its first key. */
export const OR_URL = 'x-or-url'

/** A section in which every key is optional and missing ones take their defaults. */
export function section<T extends z.core.$ZodLooseShape>(shape: T, description: string) {
  return z
    .strictObject(shape)
    .prefault({} as z.input<z.ZodObject<T, z.core.$strict>>)
    .meta({ description })
}

/** One entry, or a list of entries; always a list when read. */
export function oneOrMany<T extends z.ZodType>(entry: T) {
  return z.preprocess((raw) => (Array.isArray(raw) ? raw : [raw]), z.array(entry).min(1)).meta({ [ONE_OR_MANY]: true })
}
