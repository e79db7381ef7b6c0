// A private certificate authority for tests, by openssl: real files as an operator would have them.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './lab.ts'

export interface Authority {
  /** The CA certificate, PEM: what clients are given to trust. */
  readonly caFile: string
  /** Issues a certificate for DNS names and IP addresses; files are named after the first. */
  issue(names: readonly string[]): Promise<{ readonly certFile: string; readonly keyFile: string }>
}

/** Makes a new authority in `folder`. Certificates last 2 days. */
export async function makeAuthority(folder: string): Promise<Authority> {
  const caFile = join(folder, 'ca.pem')
  const caKey = join(folder, 'ca.key')
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  await run('openssl', [
    'req',
    '-x509',
    ...newKey,
    '-days',
    '2',
    '-subj',
    '/CN=Entrepot test authority',
    '-addext',
    'keyUsage=critical,keyCertSign,cRLSign',
    '-keyout',
    caKey,
    '-out',
    caFile,
  ])
  return {
    caFile,
    issue: async (names) => {
      const stem = join(folder, (names[0] ?? 'server').replaceAll(/[^a-z0-9.-]/g, '_'))
      const [certFile, keyFile, requestFile, extensionFile] = [
        `${stem}.pem`,
        `${stem}.key`,
        `${stem}.csr`,
        `${stem}.ext`,
      ]
      const alternatives = names.map((name) => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`)).join(',')
      await writeFile(extensionFile, `subjectAltName=${alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n`)
      await run('openssl', ['req', '-new', ...newKey, '-subj', '/CN=test', '-keyout', keyFile, '-out', requestFile])
      await run('openssl', [
        'x509',
        '-req',
        '-in',
        requestFile,
        '-CA',
        caFile,
        '-CAkey',
        caKey,
        '-CAcreateserial',
        '-days',
        '2',
        '-extfile',
        extensionFile,
        '-out',
        certFile,
      ])
      return { certFile, keyFile }
    },
  }
}
