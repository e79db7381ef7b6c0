/** The ledger's statements: applies batches and answers reads on one open database. Runs in the worker only. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite'
import { parseDigest, type Digest } from '../../oci/digest.ts'
import type { ChildRecord, ChildRole, ParentRecord, TagRecord, Usage, VerifiedMark } from '../ledger.ts'
import { ImageFacts } from './image-facts.ts'
import type { Answers, Batch, Read, Touch, Write } from './messages.ts'

type Row = Record<string, SQLOutputValue>

/** Interned ids kept at hand; forgotten all at once beyond this, since looking one up again costs microseconds. */
const MAX_KEPT_IDS = 20_000
/** The longest list one read answers. More manifests than that naming one blob say nothing new. */
export const MAX_LISTED = 10_000

const ROLES: readonly ChildRole[] = ['manifest', 'config', 'layer', 'subject']

const IN_REPOSITORY = `(SELECT r.id FROM namespace n JOIN repository r ON r.namespace = n.id WHERE n.name = ? AND r.name = ?)`

export class Facts {
  readonly #db: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()
  readonly #ids = new Map<string, number>()
  /** Namespaces of which a write was lost since this database was opened: no longer complete until the next start. */
  readonly #lost = new Set<string>()

  readonly #images: ImageFacts

  constructor(db: DatabaseSync) {
    this.#db = db
    this.#images = new ImageFacts((sql) => this.#prepare(sql))
  }

  /** Applies the whole batch or, when it throws, nothing of it. */
  apply({ writes, touches, lost }: Batch): void {
    for (const namespace of lost) this.#lost.add(namespace)
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      for (const write of writes) this.#write(write)
      for (const touch of touches) this.#touch(touch)
      this.#db.exec('COMMIT')
    } catch (error) {
      // A full disk rolls back by itself; ids that were handed out on the way no longer exist.
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      this.#ids.clear()
      for (const { namespace } of writes) this.#lost.add(namespace)
      throw error
    }
  }

  answer(read: Read): Answers[Read['read']] {
    switch (read.read) {
      case 'tag':
        return this.#tag(read.namespace, read.repository, read.tag)
      case 'verified':
        return this.#verified(read.namespace, read.digest)
      case 'parents':
        return this.#parents(read.namespace, read.repository, read.child)
      case 'children':
        return this.#children(read.namespace, read.repository, read.manifest)
      case 'usage':
        return this.#usage(read.namespace, read.repository, read.manifest)
      case 'isComplete': {
        const row = this.#get('SELECT complete FROM namespace WHERE name = ?', read.namespace)
        return row?.['complete'] === 1 && !this.#lost.has(read.namespace)
      }
      case 'images':
        return this.#images.list(read)
      case 'leastUsed':
        return this.#images.listLeastUsed(read)
      case 'closure':
        return this.#images.closure(read.namespace, read.repository, read.image)
      case 'references':
        return this.#images.countReferences(read.namespace, read.digests)
      case 'verifiedBytes':
        return this.#images.verifiedBytes(read.namespace)
    }
  }

  /** Makes all that was applied durable. */
  checkpoint(): void {
    this.#db.exec('PRAGMA wal_checkpoint(FULL)')
  }

  /** Closes in order; the next start trusts the facts only when none was lost. */
  close(): void {
    try {
      if (this.#lost.size === 0) this.#db.exec(`UPDATE state SET value = '1' WHERE key = 'clean'`)
    } finally {
      this.#db.close()
    }
  }

  #write(write: Write): void {
    switch (write.write) {
      case 'tag':
        this.#run(
          `INSERT INTO tag (repository, name, digest, checked_at) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET digest = excluded.digest, checked_at = excluded.checked_at`,
          this.#repositoryId(write.namespace, write.repository),
          write.tag,
          write.record.digest,
          write.record.checkedAt,
        )
        return
      case 'tagRemoval':
        this.#run(
          `DELETE FROM tag WHERE repository = ${IN_REPOSITORY} AND name = ?`,
          write.namespace,
          write.repository,
          write.tag,
        )
        return
      case 'verified':
        this.#run(
          `INSERT INTO verified (namespace, digest, size, mtime_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET size = excluded.size, mtime_ms = excluded.mtime_ms`,
          this.#namespaceId(write.namespace),
          write.digest,
          write.mark.size,
          write.mark.mtimeMs,
        )
        return
      case 'verifiedRemoval':
        this.#run(
          'DELETE FROM verified WHERE namespace = (SELECT id FROM namespace WHERE name = ?) AND digest = ?',
          write.namespace,
          write.digest,
        )
        return
      case 'manifest':
        this.#manifest(this.#repositoryId(write.namespace, write.repository), write)
        return
      case 'manifestRemoval':
        this.#removeManifest(write.namespace, write.repository, write.manifest)
        return
      case 'complete':
        if (this.#lost.has(write.namespace)) return
        this.#run('UPDATE namespace SET complete = 1 WHERE id = ?', this.#namespaceId(write.namespace))
    }
  }

  #manifest(repository: number, write: Write & { readonly write: 'manifest' }): void {
    const { manifest: digest, children, addedAt } = write
    const manifest = this.#internId(
      ['SELECT id FROM manifest WHERE repository = ? AND digest = ?', repository, digest],
      'INSERT INTO manifest (repository, digest) VALUES (?, ?)',
    )
    const used = 'UPDATE manifest SET added_at = iif(added_at = 0, ?, added_at), used_at = max(used_at, ?) WHERE id = ?'
    this.#run(used, addedAt, addedAt, manifest)
    this.#run('DELETE FROM child WHERE manifest = ?', manifest)
    // One digest may stand in several places (empty layers); what counts is that and as what it is named.
    const named = new Set<string>()
    for (const [position, child] of children.entries()) {
      const key = `${child.role} ${child.digest}`
      if (named.has(key)) continue
      named.add(key)
      this.#run(
        'INSERT INTO child (manifest, position, repository, digest, size, role) VALUES (?, ?, ?, ?, ?, ?)',
        manifest,
        position,
        repository,
        child.digest,
        child.size,
        child.role,
      )
    }
  }

  #removeManifest(namespace: string, repository: string, digest: Digest): void {
    const manifest = `SELECT id FROM manifest WHERE repository = ${IN_REPOSITORY} AND digest = ?`
    this.#run(`DELETE FROM child WHERE manifest = (${manifest})`, namespace, repository, digest)
    this.#run(`DELETE FROM manifest WHERE repository = ${IN_REPOSITORY} AND digest = ?`, namespace, repository, digest)
  }

  /** A pull of one platform is a use of the index that names it: only that one was asked for by its tag. */
  #touch({ namespace, repository, manifest, gets, lastGetAt, lastHeadAt }: Touch): void {
    const repositoryId = this.#repositoryId(namespace, repository)
    this.#run(
      `INSERT INTO manifest (repository, digest, gets, last_get_at, last_head_at, added_at, used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, max(?4, ?5), ?4)
         ON CONFLICT DO UPDATE SET gets = gets + excluded.gets, last_get_at = max(last_get_at, excluded.last_get_at),
           last_head_at = max(last_head_at, excluded.last_head_at), used_at = max(used_at, excluded.used_at)`,
      repositoryId,
      manifest,
      gets,
      lastGetAt,
      lastHeadAt,
    )
    if (lastGetAt === 0) return
    this.#run(
      `UPDATE manifest SET used_at = max(used_at, ?1) WHERE used_at < ?1 AND id IN
         (SELECT manifest FROM child WHERE repository = ?2 AND digest = ?3 AND role = 'manifest')`,
      lastGetAt,
      repositoryId,
      manifest,
    )
  }

  #tag(namespace: string, repository: string, tag: string): TagRecord | undefined {
    const sql = `SELECT digest, checked_at FROM tag WHERE repository = ${IN_REPOSITORY} AND name = ?`
    const row = this.#get(sql, namespace, repository, tag)
    const digest = row && digestIn(row)
    return digest && { digest, checkedAt: Number(row['checked_at']) }
  }

  #verified(namespace: string, digest: Digest): VerifiedMark | undefined {
    const sql = `SELECT size, mtime_ms FROM verified
      WHERE namespace = (SELECT id FROM namespace WHERE name = ?) AND digest = ?`
    const row = this.#get(sql, namespace, digest)
    return row && { size: Number(row['size']), mtimeMs: Number(row['mtime_ms']) }
  }

  #parents(namespace: string, repository: string, child: Digest): ParentRecord[] {
    const sql = `SELECT m.digest, c.size, c.role FROM child c JOIN manifest m ON m.id = c.manifest
      WHERE c.repository = ${IN_REPOSITORY} AND c.digest = ? LIMIT ${MAX_LISTED}`
    return this.#all(sql, namespace, repository, child).flatMap((row) => {
      const edge = edgeIn(row)
      return edge ? [{ parent: edge.digest, size: edge.size, role: edge.role }] : []
    })
  }

  #children(namespace: string, repository: string, manifest: Digest): ChildRecord[] {
    const sql = `SELECT c.digest, c.size, c.role FROM child c
      WHERE c.manifest = (SELECT id FROM manifest WHERE repository = ${IN_REPOSITORY} AND digest = ?)
      ORDER BY c.position LIMIT ${MAX_LISTED}`
    return this.#all(sql, namespace, repository, manifest).flatMap((row) => edgeIn(row) ?? [])
  }

  #usage(namespace: string, repository: string, manifest: Digest): Usage | undefined {
    const sql = `SELECT gets, last_get_at, last_head_at FROM manifest
      WHERE repository = ${IN_REPOSITORY} AND digest = ? AND (last_get_at > 0 OR last_head_at > 0)`
    const row = this.#get(sql, namespace, repository, manifest)
    return (
      row && {
        gets: Number(row['gets']),
        lastGetAt: Number(row['last_get_at']),
        lastHeadAt: Number(row['last_head_at']),
      }
    )
  }

  #namespaceId(namespace: string): number {
    return this.#internId(
      ['SELECT id FROM namespace WHERE name = ?', namespace],
      'INSERT INTO namespace (name) VALUES (?)',
      namespace,
    )
  }

  #repositoryId(namespace: string, repository: string): number {
    // A space is in neither name.
    const key = `${namespace} ${repository}`
    const kept = this.#ids.get(key)
    if (kept !== undefined) return kept
    return this.#internId(
      ['SELECT id FROM repository WHERE namespace = ? AND name = ?', this.#namespaceId(namespace), repository],
      'INSERT INTO repository (namespace, name) VALUES (?, ?)',
      key,
    )
  }

  /** The id of a row, which is inserted when it is missing; kept under `key` when one is given. */
  #internId([select, ...values]: [string, ...(string | number)[]], insert: string, key?: string): number {
    const kept = key === undefined ? undefined : this.#ids.get(key)
    if (kept !== undefined) return kept
    const row = this.#get(select, ...values)
    const id = Number(row ? row['id'] : this.#run(insert, ...values).lastInsertRowid)
    if (key !== undefined) {
      if (this.#ids.size >= MAX_KEPT_IDS) this.#ids.clear()
      this.#ids.set(key, id)
    }
    return id
  }

  #get(sql: string, ...values: (string | number)[]): Row | undefined {
    return this.#prepare(sql).get(...values)
  }

  #all(sql: string, ...values: (string | number)[]): Row[] {
    return this.#prepare(sql).all(...values)
  }

  #run(sql: string, ...values: (string | number)[]): ReturnType<StatementSync['run']> {
    return this.#prepare(sql).run(...values)
  }

  /** Every statement of this file once; the map is as long as the file has statements. */
  #prepare(sql: string): StatementSync {
    const held = this.#statements.get(sql)
    if (held) return held
    const statement = this.#db.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }
}

function digestIn(row: Row): Digest | undefined {
  const text = row['digest']
  return typeof text === 'string' ? parseDigest(text) : undefined
}

/** A row whose digest or role we would not have written is left out: somebody edited the file. */
function edgeIn(row: Row): ChildRecord | undefined {
  const digest = digestIn(row)
  const role = ROLES.find((known) => known === row['role'])
  return digest && role && { digest, size: Number(row['size']), role }
}
