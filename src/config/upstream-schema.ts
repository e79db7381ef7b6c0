/** `upstreams.d/NAME.yaml`: every key of one upstream with its unit, default and description. The only home of defaults. */
import { z } from 'zod'
import { Leaves, type Surroundings } from './leaf.ts'
import { oneOrMany, OR_URL, section } from './section.ts'

/** A name with at most a port, or a pattern of one; also the name of a folder, so nothing with a slash. */
export const UPSTREAM_NAME = /^(?:[a-z0-9*-]+\.)*[a-z0-9*-]+(?::\d{1,5})?$/
// What clients accept before the image's name (distribution-spec, <name>); routing looks at four parts at most.
const PREFIX_PART = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const PREFIX = new RegExp(`^${PREFIX_PART}(?:/${PREFIX_PART}){0,3}$`)
const NS = /^(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::\d{1,5})?$/
const REALM = /^(?:https:\/\/)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?(?:\/[^?#\s]*)?$/
const GLOB = /^[^\s]+$/
const USER = /^[^:\s]+$/
const HELPER = /^[a-z0-9][a-z0-9._-]*$/i

/** The schema of one upstream's file; `url` is the only key it must have. */
export function upstreamSchema(surroundings: Surroundings) {
  const leaves = new Leaves(surroundings)
  const globs = (example: string) => z.array(leaves.text(example, { pattern: GLOB, what: 'pattern' }))
  return z.strictObject({
    name: leaves
      .text('ghcr.io', { pattern: UPSTREAM_NAME, what: 'name of an upstream in lower case' })
      .optional()
      .meta({
        description:
          "Its key, its `ns`, its prefix and its folder below `data`. Default: the file's name without `.yaml`. With `*` it is a pattern: each host that matches becomes an upstream of its own.",
      }),
    url: oneOrMany(endpoint(leaves)).meta({
      description: 'Where the registry is: one URL without `/v2`, or a list of endpoints `{ url, capabilities }`.',
    }),
    order: leaves.choice('listed', 'fastest').prefault('listed').meta({
      description: 'Order in which several endpoints are tried: as `listed`, or the `fastest` by measurement first.',
    }),
    aliases: z
      .array(leaves.text('registry-1.docker.io', { pattern: NS, what: 'host name' }))
      .prefault([])
      .meta({
        description:
          'Further `ns` values that mean this upstream. `docker.io` always has registry-1.docker.io, index.docker.io and registry.hub.docker.com.',
      }),
    routes: section(
      {
        hosts: z
          .array(leaves.text('ghcr.mirror.example', { pattern: NS, what: 'host name' }))
          .prefault([])
          .meta({
            description: 'Host names (SNI and `Host`) under which clients reach this upstream alone.',
          }),
        port: leaves.integer(1, 65_535, '5002').optional().meta({
          description:
            'Port at which clients reach this upstream alone. Opened on the hosts of `listen`, with their TLS, unless `listen` names the port itself.',
        }),
        prefix: leaves.text('ghcr.io', { pattern: PREFIX, what: 'path prefix in lower case' }).optional().meta({
          description:
            'A further first part of the path that selects this upstream, beside its name: with `hub`, `gateway/hub/library/alpine`.',
        }),
      },
      'By what a request is recognised as meant for this upstream, beside `ns`.',
    ),
    auth: oneOrMany(credential(leaves)).optional().meta({
      description:
        'Credentials for the registry: one, or a list with `repositories`. The longest matching repository decides. Without it pulls are anonymous.',
    }),
    access: leaves.choice('shared').optional().meta({
      description:
        'Must be `shared` where the upstream has credentials and clients need none: everything they can read is then shared with every client that reaches this gateway.',
    }),
    allowPlaintextCredentials: leaves.flag().prefault(false).meta({
      description: 'Allows credentials to be sent over `http://` to a host other than this machine.',
    }),
    tags: tags(leaves),
    fill: fill(leaves),
    keep: section(
      {
        quota: leaves.size('100GiB').prefault('unlimited').meta({
          description:
            'Most bytes of images this upstream may hold; before it is exceeded its least recently used image goes.',
        }),
        idle: leaves
          .duration('30d')
          .prefault('unlimited')
          .meta({ description: 'An image that nobody asked for in so long goes.' }),
        pin: globs('acme/base:*').prefault([]).meta({
          description:
            'Images that never go: `repository:tag`, `repository@digest`, or `repository` for all of it, with `*` and `**`.',
        }),
      },
      'What stays on the disk.',
    ),
    limits: section(
      {
        connections: leaves.integer(1, 4096, '64').prefault(64).meta({
          description: 'Most connections to the registry at a time.',
        }),
        bandwidth: leaves.size('100MiB').prefault('unlimited').meta({ description: 'Most bytes per second from it.' }),
        requestsPerSecond: leaves
          .rate('10')
          .prefault('unlimited')
          .meta({ description: 'Most requests per second to it.' }),
      },
      'How hard the registry is used.',
    ),
    network: network(leaves),
    clients: clients(leaves),
    allow: globs('acme/**').min(1).prefault(['**']).meta({
      description: 'Repositories that may be pulled; `*` stops at `/`, `**` does not.',
    }),
    deny: globs('acme/secret-*').prefault([]).meta({ description: 'Repositories that may not; wins over `allow`.' }),
    offline: leaves.flag().prefault(false).meta({ description: 'Never calls the registry: serves what is held.' }),
  })
}

export type UpstreamFile = z.output<ReturnType<typeof upstreamSchema>>

function endpoint(leaves: Leaves) {
  const example = 'https://ghcr.io'
  const shape = z.strictObject({
    url: leaves.url(example).meta({ description: 'Base URL of the endpoint, without `/v2`.' }),
    capabilities: z.array(leaves.choice('resolve', 'pull')).min(1).prefault(['resolve', 'pull']).meta({
      description: 'What the endpoint is trusted with: `resolve` tags, `pull` bytes by digest.',
    }),
  })
  return z
    .preprocess((raw) => (typeof raw === 'object' && raw !== null ? raw : { url: raw }), shape)
    .meta({ [OR_URL]: true })
}

function credential(leaves: Leaves) {
  return z
    .strictObject({
      username: leaves
        .secret('env:GHCR_USER')
        .optional()
        .meta({ description: 'User name; `env:NAME` and `file:PATH` work too.' }),
      password: leaves.secret('file:/run/secrets/ghcr').optional().meta({
        description: 'Password or access token: `env:NAME`, or `file:PATH`, which is read again when it changes.',
      }),
      helper: leaves.text('ecr-login', { pattern: HELPER, what: 'name of a credential helper' }).optional().meta({
        description: 'Instead of both: asks the program `docker-credential-NAME`.',
      }),
      repositories: z
        .array(leaves.text('acme/*', { pattern: GLOB, what: 'pattern' }))
        .min(1)
        .optional()
        .meta({
          description: 'Repositories this credential is for. Default: all.',
        }),
    })
    .superRefine((value, context) => {
      const hasPair = value.username !== undefined && value.password !== undefined
      const hasHalf = value.username !== undefined || value.password !== undefined
      if (value.helper !== undefined && hasHalf) {
        context.addIssue({
          code: 'custom',
          path: ['helper'],
          message: 'stands beside username or password: keep one of both ways',
        })
      } else if (value.helper === undefined && !hasPair) {
        context.addIssue({ code: 'custom', message: 'needs username and password, or helper' })
      }
    })
}

function clients(leaves: Leaves) {
  return z
    .strictObject({
      users: z
        .array(leaves.text('ci', { pattern: USER, what: 'user name' }))
        .min(1)
        .optional()
        .meta({ description: 'Users of `clients.htpasswd` that may.' }),
      certificates: z
        .array(leaves.text('node-*.example', { pattern: GLOB, what: 'pattern' }))
        .min(1)
        .optional()
        .meta({
          description:
            'Patterns of names (common name, DNS, URI, e-mail) in client certificates that may, beside the `users`.',
        }),
      networks: z
        .array(leaves.network('10.0.0.0/8'))
        .min(1)
        .optional()
        .meta({ description: 'Networks they must come from as well.' }),
    })
    .refine(({ users, certificates, networks }) => (users ?? certificates ?? networks) !== undefined, {
      message: 'names nobody: write users, certificates or networks, or remove it',
    })
    .optional()
    .meta({
      description:
        'Who of those that `clients` in entrepot.yaml lets in may pull from this upstream. Default: all of them.',
    })
}

function tags(leaves: Leaves) {
  return section(
    {
      ttl: leaves
        .duration('1m')
        .prefault('1m')
        .meta({ description: 'A tag younger than this is served without asking the registry.' }),
      maxWait: leaves.duration('3s').optional().meta({
        description:
          'How long a client waits for the registry to confirm an older tag before it gets the one held. Default: 3s when confirmed within a day, else 10s.',
      }),
      staleFor: leaves.duration('30d').prefault('unlimited').meta({
        description: 'How long after its last confirmation a tag is served while the registry gives no answer.',
      }),
      immutable: z
        .array(leaves.text('v*', { pattern: GLOB, what: 'pattern' }))
        .prefault([])
        .meta({
          description: 'Patterns of tags that never change: never asked again.',
        }),
      onGone: leaves.choice('keep', 'follow').prefault('keep').meta({
        description:
          'When the registry says 404 for a tag we hold: `keep` serving it for `goneFor`, or `follow` at once.',
      }),
      goneFor: leaves.duration('24h').prefault('24h').meta({ description: 'See `tags.onGone`.' }),
      deniedFor: leaves.duration('7d').prefault('7d').meta({
        description:
          'How long a repository that the registry denies us, where no credential is configured, keeps being served from here.',
      }),
      recheck: leaves.duration('24h').prefault('24h').meta({
        description: 'How often the right to a repository pulled with credentials is confirmed, also by digest.',
      }),
    },
    'How long tags are believed.',
  )
}

function fill(leaves: Leaves) {
  return section(
    {
      connections: leaves.integer(1, 32, '4').prefault(4).meta({ description: 'Connections for one large blob.' }),
      from: leaves
        .size('32MiB')
        .prefault('32MiB')
        .meta({ description: 'A blob from this size on is fetched by several connections.' }),
      complete: leaves.choice('onPull', 'never').prefault('onPull').meta({
        description: "Whether the rest of an image's platform follows in the background after a real pull.",
      }),
      completeMax: leaves
        .size('5GiB')
        .prefault('5GiB')
        .meta({ description: 'Larger images are not completed in the background.' }),
    },
    'How blobs come in.',
  )
}

function network(leaves: Leaves) {
  return section(
    {
      proxy: leaves.proxyUrl('http://proxy.corp:3128').optional().meta({
        description: 'Egress proxy for this upstream. Default: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.',
      }),
      ca: leaves.file('/etc/ssl/corp-ca.pem').optional().meta({
        description: 'PEM file of authorities trusted for this upstream, beside the usual ones.',
      }),
      cert: leaves
        .file('client.pem')
        .optional()
        .meta({ description: 'Client certificate shown to the registry (PEM file).' }),
      key: leaves.file('client.key').optional().meta({ description: 'Its key (PEM file).' }),
      realms: z
        .array(leaves.text('https://auth.example', { pattern: REALM, what: 'host or https URL' }))
        .prefault([])
        .meta({
          description: "Token servers outside the registry's own domain that may receive the credentials.",
        }),
      allowPrivate: z.array(leaves.network('10.0.0.0/8')).prefault([]).meta({
        description:
          "Private networks that this upstream's redirects and token servers may reach. `url` itself always may.",
      }),
    },
    'How the registry is reached.',
  )
}
