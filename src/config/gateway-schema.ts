/** `entrepot.yaml`: every key of the gateway itself with its unit, default and description. The only home of defaults. */
import { z } from 'zod'
import { Leaves, type Surroundings } from './leaf.ts'
import { oneOrMany, section } from './section.ts'

const HOST_OR_WILDCARD = /^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/

/** The schema of entrepot.yaml; every key is optional. */
export function gatewaySchema(surroundings: Surroundings) {
  const leaves = new Leaves(surroundings)
  return z.strictObject({
    listen: oneOrMany(listener(leaves)).optional().meta({
      description:
        'Where clients pull. Default: 127.0.0.1:5000 with docker.io as default, if there is such an upstream.',
    }),
    admin: section(
      {
        address: leaves.address('127.0.0.1:5080').prefault('127.0.0.1:5080').meta({
          description: 'Address of health, metrics and the admin API.',
        }),
        token: leaves.secret('env:ENTREPOT_ADMIN_TOKEN').optional().meta({
          description: 'Token the admin API asks for. Required when `address` is not on loopback.',
        }),
      },
      'The listener for operators.',
    ),
    data: leaves
      .path('./data')
      .prefault('./data')
      .meta({ description: 'Folder of everything held, one folder an upstream.' }),
    ledger: leaves.path('./data/ledger.sqlite').optional().meta({
      description:
        'SQLite file of what is known about it; not on a network file system. Default: `ledger.sqlite` in `data`.',
    }),
    upstreams: leaves.path('./upstreams.d').optional().meta({
      description:
        'Folder with one YAML file an upstream. Default: `upstreams.d` beside this file if there is one, else the shipped folder.',
    }),
    keep: section(
      {
        quota: leaves.size('500GiB').prefault('unlimited').meta({
          description:
            'Most bytes of images that all upstreams together may hold; before it is exceeded the least recently used image goes.',
        }),
        free: leaves.shareOrSize('10%').prefault('10%').meta({
          description:
            'Share of the disk, or bytes, that stays free: what does not fit beside it is passed through and not stored.',
        }),
        idle: leaves.duration('90d').prefault('unlimited').meta({
          description: "An image that nobody asked for in so long goes; the shorter of this and the upstream's own.",
        }),
      },
      'What stays on the disk, for all upstreams together.',
    ),
    clients: z
      .strictObject({
        htpasswd: leaves.file('./htpasswd').optional().meta({
          description: 'File of users and bcrypt hashes, as `htpasswd -B` writes it. Read again when it changes.',
        }),
        networks: z
          .array(leaves.network('10.0.0.0/8'))
          .min(1)
          .optional()
          .meta({ description: 'Networks clients may come from.' }),
        require: leaves.choice('all', 'any').prefault('all').meta({
          description:
            'Whether all or any of those named must hold. On a listener with `tls.clientCa` a client certificate counts as named.',
        }),
      })
      .optional()
      .meta({
        description: 'Who may pull. Without it whoever reaches the listener may.',
      }),
    externalUrl: leaves.url('https://registry.example').optional().meta({
      description:
        'Address under which clients reach this gateway from outside: an `ns` that names it selects no upstream.',
    }),
    trustedProxies: z.array(leaves.network('10.0.0.0/8')).prefault([]).meta({
      description:
        'Networks of reverse proxies whose `X-Forwarded-For` is believed: the right-most address in it that is none of them is the client.',
    }),
    log: section(
      {
        level: leaves
          .choice('debug', 'info', 'warn', 'error')
          .prefault('info')
          .meta({ description: 'Least level that is written.' }),
        format: leaves.choice('auto', 'json', 'pretty').prefault('auto').meta({
          description: 'JSON lines or a readable form; `auto` is readable on a terminal.',
        }),
      },
      'The log, on standard output.',
    ),
    drain: section(
      {
        delay: leaves.duration('5s').prefault('5s').meta({
          description: 'After SIGTERM: how long new connections are still taken while `/readyz` says no.',
        }),
        timeout: leaves
          .duration('60s')
          .prefault('60s')
          .meta({ description: 'Then: how long running transfers may take to end.' }),
      },
      'How the gateway stops.',
    ),
  })
}

export type GatewayFile = z.output<ReturnType<typeof gatewaySchema>>

function listener(leaves: Leaves) {
  return z.strictObject({
    address: leaves.address('127.0.0.1:5000').meta({ description: '`host:port`; `:5000` is all interfaces.' }),
    default: leaves.text('docker.io').optional().meta({
      description: 'Upstream of a request that names none; without it such a request is 404.',
    }),
    tls: oneOrMany(certificate(leaves)).optional().meta({
      description: 'Certificate, or a list of them by `hosts`. Without it the listener speaks plain HTTP.',
    }),
  })
}

function certificate(leaves: Leaves) {
  return z.strictObject({
    cert: leaves.file('tls.crt').meta({ description: 'Certificate with its chain (PEM file).' }),
    key: leaves.file('tls.key').meta({ description: 'Its key (PEM file).' }),
    clientCa: leaves.file('clients-ca.pem').optional().meta({
      description:
        'Authority of client certificates (PEM file): only clients with one of its certificates are then served, unless `clients.require` is `any`.',
    }),
    hosts: z
      .array(leaves.text('registry.example', { pattern: HOST_OR_WILDCARD, what: 'host name' }))
      .min(1)
      .optional()
      .meta({ description: 'Host names this certificate is for. The one without `hosts` is for all others.' }),
  })
}
