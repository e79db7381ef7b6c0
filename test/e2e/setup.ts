// Installs what the end-to-end lane needs: Debian packages, and Go programs built into the lab folder at pinned versions.
// Run again it does only what is missing. A tool that cannot be had is recorded with its error and the rest goes on.

import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { labFolder, labProgram, run, runAny, type ToolRecord, toolsFile } from './lab.ts'

interface GoProgram {
  readonly name: string
  readonly module: string
  readonly package: string
  readonly version: string
}

const DEBIAN_PACKAGES = [
  'containerd',
  'runc',
  'docker.io',
  'docker-compose',
  'skopeo',
  'podman',
  'buildah',
  'mmdebstrap',
  'docker-registry',
  'nginx-light',
  'wrk',
  'apache2-utils',
  'iproute2',
  'openssl',
  'ca-certificates',
] as const

const GO_PROGRAMS: readonly GoProgram[] = [
  go('registry', 'github.com/distribution/distribution/v3', 'cmd/registry', 'v3.1.2'),
  go('crane', 'github.com/google/go-containerregistry', 'cmd/crane', 'v0.22.1'),
  go('conformance', 'github.com/opencontainers/distribution-spec', 'conformance', 'v0.0.0-20260831232431-97274622c111'),
  go('oras', 'oras.land/oras', 'cmd/oras', 'v1.3.6'),
  go('regctl', 'github.com/regclient/regclient', 'cmd/regctl', 'v0.11.7'),
  go('containerd', 'github.com/containerd/containerd/v2', 'cmd/containerd', 'v2.4.2'),
  go('ctr', 'github.com/containerd/containerd/v2', 'cmd/ctr', 'v2.4.2'),
  go('containerd-shim-runc-v2', 'github.com/containerd/containerd/v2', 'cmd/containerd-shim-runc-v2', 'v2.4.2'),
  go('helm', 'helm.sh/helm/v3', 'cmd/helm', 'v3.22.0'),
  go('crictl', 'sigs.k8s.io/cri-tools', 'cmd/crictl', 'v1.37.0'),
  go('cosign', 'github.com/sigstore/cosign/v3', 'cmd/cosign', 'v3.1.3'),
]

function go(name: string, module: string, path: string, version: string): GoProgram {
  return { name, module, package: `${module}/${path}`, version }
}

function say(text: string): void {
  process.stdout.write(`setup: ${text}\n`)
}

function firstLines(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.split('\n').slice(0, 6).join(' | ').slice(0, 600)
}

async function debianVersion(name: string): Promise<string | undefined> {
  const ran = await runAny('dpkg-query', ['-W', '-f', '${db:Status-Status} ${Version}', name]).catch(() => undefined)
  if (ran === undefined || ran.code !== 0 || !ran.stdout.startsWith('installed ')) return undefined
  return ran.stdout.slice('installed '.length)
}

/** Packages bring services; a policy that answers 101 keeps them from starting. Never replaces one that is there. */
async function forbidServices(): Promise<void> {
  if (existsSync('/usr/sbin/policy-rc.d')) return
  await writeFile('/usr/sbin/policy-rc.d', '#!/bin/sh\nexit 101\n', { mode: 0o755 })
}

async function installDebian(): Promise<readonly ToolRecord[]> {
  const missing: string[] = []
  for (const name of DEBIAN_PACKAGES) if ((await debianVersion(name)) === undefined) missing.push(name)
  const errors = new Map<string, string>()
  if (missing.length > 0) {
    say(`apt-get install ${missing.join(' ')}`)
    await forbidServices().catch((error: unknown) => say(`policy-rc.d: ${firstLines(error)}`))
    const apt = async (args: readonly string[]): Promise<string> =>
      run('apt-get', args, { env: { DEBIAN_FRONTEND: 'noninteractive' }, timeoutMs: 900_000 })
    const install = ['install', '-y', '-q', '--no-install-recommends']
    await apt(['update', '-q']).catch((error: unknown) => say(`apt-get update: ${firstLines(error)}`))
    // One by one only when they do not go together: one bad package must not take the others with it.
    await apt([...install, ...missing]).catch(async () => {
      for (const name of missing) {
        await apt([...install, name]).catch((error: unknown) => errors.set(name, firstLines(error)))
      }
    })
  }
  const records: ToolRecord[] = []
  for (const name of DEBIAN_PACKAGES) {
    const version = await debianVersion(name)
    records.push(version === undefined ? { name, error: errors.get(name) ?? 'not installed' } : { name, version })
  }
  return records
}

async function builtVersion(program: GoProgram): Promise<string | undefined> {
  if (!existsSync(labProgram(program.name))) return undefined
  const ran = await runAny('go', ['version', '-m', labProgram(program.name)])
  return ran.stdout
    .split('\n')
    .map((line) => line.trim().split('\t'))
    .find((fields) => fields[0] === 'mod' && program.package.startsWith(fields[1] ?? '-'))?.[2]
}

async function buildGo(program: GoProgram): Promise<ToolRecord> {
  const record = { name: program.name, version: program.version, path: labProgram(program.name) }
  try {
    if ((await builtVersion(program)) === program.version) return record
    const startedAt = Date.now()
    await run('nice', ['go', 'install', `${program.package}@${program.version}`], {
      env: { GOBIN: join(labFolder(), 'bin'), GOTOOLCHAIN: 'local', GOFLAGS: '-buildvcs=false' },
      timeoutMs: 1_200_000,
    })
    say(`built ${program.name} ${program.version} in ${Math.round((Date.now() - startedAt) / 1000)} s`)
    return record
  } catch (error) {
    return { name: program.name, error: firstLines(error) }
  }
}

async function setup(): Promise<void> {
  await mkdir(join(labFolder(), 'bin'), { recursive: true })
  const records: ToolRecord[] = [...(await installDebian())]
  for (const program of GO_PROGRAMS) records.push(await buildGo(program))
  await writeFile(toolsFile(), `${JSON.stringify(records, undefined, 2)}\n`)
  for (const { name, version, error } of records)
    say(error === undefined ? `${name} ${version}` : `${name} MISSING: ${error}`)
}

await setup()
