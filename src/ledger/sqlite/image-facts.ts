/** What keeping and operators ask: which images there are, what each holds together, and who else needs it. */
import type { SQLOutputValue, StatementSync } from 'node:sqlite'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import { parseTag } from '../../oci/reference.ts'
import { parseRepository, type Repository } from '../../oci/repository.ts'
import type { ClosureRecord, ImagePage, ImageRecord } from '../ledger.ts'

type Row = Record<string, SQLOutputValue>
type Value = string | number

/** Members of one image that are answered. What is beyond is found by the sweep, once nobody needs it. */
const MAX_MEMBERS = 10_000
const MAX_TAGS = 100

const NAMESPACE = '(SELECT id FROM namespace WHERE name = ?)'
const COLUMNS = `m.id, m.repository AS repository_id, r.name AS repository, m.digest, m.gets, m.last_head_at,
  m.added_at, m.used_at`
/**
 * A root: a tag points to it, or no manifest of its repository names it and it names no subject that is held. A digest
 * names itself nowhere, so there are no cycles.
 */
const IS_ROOT = `(EXISTS (SELECT 1 FROM tag t WHERE t.repository = m.repository AND t.digest = m.digest)
  OR NOT EXISTS (SELECT 1 FROM child c WHERE c.digest = m.digest AND c.repository = m.repository AND c.role = 'manifest')
  AND NOT EXISTS (SELECT 1 FROM child s JOIN manifest k ON k.repository = s.repository AND k.digest = s.digest
    WHERE s.manifest = m.id AND s.role = 'subject'))`

export class ImageFacts {
  readonly #prepare: (sql: string) => StatementSync

  constructor(prepare: (sql: string) => StatementSync) {
    this.#prepare = prepare
  }

  list(options: {
    readonly namespace: string
    readonly repository: Repository | undefined
    readonly after: string | undefined
    readonly limit: number
  }): ImagePage {
    const { namespace, repository, after = '', limit } = options
    const [name = '', digest = ''] = after.split(' ')
    const sql = `SELECT ${COLUMNS} FROM repository r JOIN manifest m ON m.repository = r.id
      WHERE r.namespace = ${NAMESPACE} AND (? = '' OR r.name = ?) AND (r.name, m.digest) > (?, ?) AND ${IS_ROOT}
      ORDER BY r.name, m.digest LIMIT ?`
    const wanted = repository ?? ''
    const rows = this.#all(sql, namespace, wanted, wanted, name, digest, limit)
    return this.#page(rows, limit, (row) => `${String(row['repository'])} ${String(row['digest'])}`)
  }

  listLeastUsed(options: {
    readonly namespace: string
    readonly after: string | undefined
    readonly limit: number
  }): ImagePage {
    const { namespace, after = '-1 0', limit } = options
    const [usedAt, id] = after.split(' ').map(Number)
    // CROSS JOIN keeps this order: along the index of use, so that the oldest come without sorting all.
    const sql = `SELECT ${COLUMNS} FROM manifest m INDEXED BY manifest_by_use CROSS JOIN repository r ON r.id = m.repository
      WHERE (m.used_at, m.id) > (?, ?) AND r.namespace = ${NAMESPACE} AND ${IS_ROOT}
      ORDER BY m.used_at, m.id LIMIT ?`
    const rows = this.#all(sql, usedAt ?? -1, id ?? 0, namespace, limit)
    return this.#page(rows, limit, (row) => `${String(row['used_at'])} ${String(row['id'])}`)
  }

  closure(namespace: string, repository: string, image: Digest): ClosureRecord[] {
    const found = this.#get(`SELECT r.id FROM repository r WHERE r.namespace = ${NAMESPACE} AND r.name = ?`, [
      namespace,
      repository,
    ])
    if (found === undefined) return []
    const repositoryId = Number(found['id'])
    const members: ClosureRecord[] = []
    const queue: ClosureRecord[] = [
      { parent: undefined, digest: image, role: 'manifest', size: 0, isTagged: this.#isTagged(repositoryId, image) },
    ]
    const seen = new Set<Digest>([image])
    for (
      let manifest = queue.shift();
      manifest !== undefined && members.length < MAX_MEMBERS;
      manifest = queue.shift()
    ) {
      members.push(manifest)
      for (const member of this.#members(repositoryId, manifest.digest)) {
        if (member.role === 'config' || member.role === 'layer') members.push(member)
        else if (!seen.has(member.digest)) queue.push(member)
        seen.add(member.digest)
      }
    }
    return members.slice(0, MAX_MEMBERS)
  }

  countReferences(namespace: string, digests: readonly Digest[]): number[] {
    const id = Number(this.#get(`SELECT ${NAMESPACE} AS id`, [namespace])?.['id'] ?? -1)
    const sql = `SELECT
      (SELECT count(*) FROM child c JOIN repository r ON r.id = c.repository
        WHERE c.digest = ?1 AND r.namespace = ?2 AND c.role <> 'subject') +
      (SELECT count(*) FROM manifest m JOIN repository r ON r.id = m.repository
        WHERE m.digest = ?1 AND r.namespace = ?2) AS count`
    return digests.map((digest) => Number(this.#get(sql, [digest, id])?.['count'] ?? 0))
  }

  verifiedBytes(namespace: string): number {
    const sql = `SELECT coalesce(sum(size), 0) AS bytes FROM verified WHERE namespace = ${NAMESPACE}`
    return Number(this.#get(sql, [namespace])?.['bytes'] ?? 0)
  }

  /** What a manifest names that is held as far as it can be known, and what names it as its subject. */
  #members(repository: number, manifest: Digest): ClosureRecord[] {
    const named = this.#all(
      `SELECT c.digest, c.size, c.role, k.id AS known FROM manifest m JOIN child c ON c.manifest = m.id
         LEFT JOIN manifest k ON c.role = 'manifest' AND k.repository = c.repository AND k.digest = c.digest
       WHERE m.repository = ? AND m.digest = ? AND c.role <> 'subject' ORDER BY c.position`,
      repository,
      manifest,
    )
    const referring = this.#all(
      `SELECT m.digest, 0 AS size, 'referrer' AS role, m.id AS known FROM child c JOIN manifest m ON m.id = c.manifest
       WHERE c.repository = ? AND c.digest = ? AND c.role = 'subject'`,
      repository,
      manifest,
    )
    return [...named, ...referring].flatMap((row) => {
      const digest = digestIn(row)
      const role = MEMBER_ROLES.find((each) => each === row['role'])
      if (digest === undefined || role === undefined) return []
      const isManifest = role === 'manifest' || role === 'referrer'
      if (isManifest && row['known'] === null) return []
      const isTagged = isManifest && this.#isTagged(repository, digest)
      return [{ parent: manifest, digest, role, size: Number(row['size']), isTagged }]
    })
  }

  #isTagged(repository: number, digest: Digest): boolean {
    return (
      this.#get('SELECT 1 FROM tag WHERE repository = ? AND digest = ? LIMIT 1', [repository, digest]) !== undefined
    )
  }

  #page(rows: readonly Row[], limit: number, cursorOf: (row: Row) => string): ImagePage {
    const last = rows.at(-1)
    return {
      images: rows.flatMap((row) => this.#imageIn(row) ?? []),
      next: last !== undefined && rows.length >= limit ? cursorOf(last) : undefined,
    }
  }

  #imageIn(row: Row): ImageRecord | undefined {
    const digest = digestIn(row)
    const repository = parseRepository(String(row['repository']))
    if (digest === undefined || repository === undefined) return undefined
    const sql = `SELECT name FROM tag WHERE repository = ? AND digest = ? ORDER BY name LIMIT ${MAX_TAGS}`
    const tags = this.#all(sql, Number(row['repository_id']), digest)
    return {
      repository,
      digest,
      tags: tags.flatMap(({ name }) => parseTag(String(name)) ?? []),
      addedAt: Number(row['added_at']),
      usedAt: Number(row['used_at']),
      lastHeadAt: Number(row['last_head_at']),
      gets: Number(row['gets']),
    }
  }

  #get(sql: string, values: readonly Value[]): Row | undefined {
    return this.#prepare(sql).get(...values)
  }

  #all(sql: string, ...values: readonly Value[]): Row[] {
    return this.#prepare(sql).all(...values)
  }
}

const MEMBER_ROLES = ['manifest', 'config', 'layer', 'referrer'] as const

function digestIn(row: Row): Digest | undefined {
  const text = row['digest']
  return typeof text === 'string' ? parseDigest(text) : undefined
}
