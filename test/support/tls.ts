/**
 * Certificates for tests: one authority, and servers or clients it vouches for, also those a client must refuse.
 * Keys are P-256 because OpenSSL makes one in about 10 ms. Everything lives in a temporary folder until the process ends.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** PEM text, and the files that hold it for those who are configured with paths. */
export interface Certificate {
  readonly cert: string
  readonly key: string
  readonly certFile: string
  readonly keyFile: string
}

export interface ServerCertificateOptions {
  /** Subject alternative names; an address is told from a host name by its form. Default `localhost`, `127.0.0.1`, `::1`. */
  readonly names?: readonly string[]
  /** Valid in 2020 only. Default false. */
  readonly isExpired?: boolean
}

export class TestAuthority {
  readonly #folder: string
  readonly #issued = new Map<string, Certificate>()
  readonly #authority: Certificate

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'entrepot-tls-'))
    process.once('exit', () => rmSync(this.#folder, { recursive: true, force: true }))
    // `openssl ca` keeps a database; it is used because `x509` of OpenSSL 3.0 cannot set a validity in the past.
    writeFileSync(join(this.#folder, 'index.txt'), '')
    writeFileSync(join(this.#folder, 'openssl.cnf'), CA_CONFIG)
    const [certFile, keyFile] = [join(this.#folder, 'ca.pem'), join(this.#folder, 'ca.key')]
    const subject = ['-subj', '/CN=Entrepot test authority', '-days', '3650']
    this.#openssl('req', '-x509', ...NEW_KEY, '-keyout', keyFile, '-out', certFile, ...subject)
    this.#authority = loadCertificate(certFile, keyFile)
  }

  /** The authority's own certificate, PEM: what a client must trust. */
  get ca(): string {
    return this.#authority.cert
  }

  get caFile(): string {
    return this.#authority.certFile
  }

  /** The same options give the same certificate. */
  server(options: ServerCertificateOptions = {}): Certificate {
    const names = options.names ?? ['localhost', '127.0.0.1', '::1']
    const alternatives = names.map((name) => `${isAddress(name) ? 'IP' : 'DNS'}:${name}`).join(',')
    const validity = options.isExpired
      ? ['-startdate', '20200101000000Z', '-enddate', '20210101000000Z']
      : ['-days', '3650']
    return this.#issue(names[0] ?? 'nameless', `subjectAltName=${alternatives}\nextendedKeyUsage=serverAuth`, validity)
  }

  /** Right authority, right dates, another host. */
  wrongHost(): Certificate {
    return this.server({ names: ['elsewhere.invalid'] })
  }

  expired(): Certificate {
    return this.server({ isExpired: true })
  }

  client(commonName = 'test client'): Certificate {
    return this.#issue(commonName, 'extendedKeyUsage=clientAuth', ['-days', '3650'])
  }

  #issue(commonName: string, extensions: string, validity: readonly string[]): Certificate {
    const wanted = [commonName, extensions, ...validity].join('\n')
    const held = this.#issued.get(wanted)
    if (held !== undefined) return held
    const path = join(this.#folder, String(this.#issued.size + 1))
    const [certFile, keyFile, request, extensionFile] = [`${path}.pem`, `${path}.key`, `${path}.csr`, `${path}.ext`]
    writeFileSync(extensionFile, `${extensions}\n`)
    this.#openssl('req', '-new', ...NEW_KEY, '-keyout', keyFile, '-out', request, '-subj', `/CN=${commonName}`)
    const signer = ['-cert', this.#authority.certFile, '-keyfile', this.#authority.keyFile]
    const config = ['-batch', '-notext', '-config', 'openssl.cnf', '-extfile', extensionFile]
    this.#openssl('ca', ...config, ...signer, ...validity, '-in', request, '-out', certFile)
    const certificate = loadCertificate(certFile, keyFile)
    this.#issued.set(wanted, certificate)
    return certificate
  }

  #openssl(...args: readonly string[]): void {
    execFileSync('openssl', args, { cwd: this.#folder, stdio: ['ignore', 'ignore', 'pipe'] })
  }
}

let shared: TestAuthority | undefined

/** The authority of this process, made at the first call. */
export function testAuthority(): TestAuthority {
  shared ??= new TestAuthority()
  return shared
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const

const CA_CONFIG = `[ca]
default_ca = tests
[tests]
new_certs_dir = .
database = index.txt
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
`

function loadCertificate(certFile: string, keyFile: string): Certificate {
  return { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8'), certFile, keyFile }
}

function isAddress(name: string): boolean {
  return name.includes(':') || /^[\d.]+$/.test(name)
}
