import type { Exchange } from '../support/recorder.js'
import type { Violation } from '../support/swagger.js'

/**
 * Answers that differ from the description on purpose: the description is of a newer version, or of what dockerd sends
 * only in part. `operation` and `pointer` are regular expressions.
 */
interface Explanation {
  readonly operation: RegExp
  readonly pointer: RegExp
  readonly message: RegExp
  readonly why: string
  /** Only in answers to clients that speak less than this. */
  readonly before?: string
}
const UNKNOWN = /no such field/
const EXPLAINED: readonly Explanation[] = [
  {
    operation: /^POST \/build 200$/,
    pointer: /^$/,
    message: /a body where none is described/,
    why: 'what a build says, an object after the other: the description leaves it out',
  },
  {
    operation: /^POST \/containers\/\{id\}\/(start 403|restart 409)$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'an address that is taken is 403 from dockerd too; the container of a task is started by its swarm alone',
  },
  {
    operation: /^GET \/containers\/\{id\}\/json 200$/,
    pointer:
      /^\/NetworkSettings\/(Bridge|EndpointID|Gateway|GlobalIPv6Address|GlobalIPv6PrefixLen|HairpinMode|IPAddress|IPPrefixLen|IPv6Gateway|LinkLocalIPv6Address|LinkLocalIPv6PrefixLen|MacAddress|SecondaryIPAddresses|SecondaryIPv6Addresses)$/,
    message: UNKNOWN,
    why: 'the default bridge is shown at the top too up to API 1.51',
  },
  {
    operation: /^GET \/containers\/\{id\}\/json 200$/,
    pointer: /^\/HostConfig\/MemorySwappiness$/,
    message: /must be integer/,
    why: "a pointer in Go: null is the kernel's own, and what dockerd sends",
  },
  {
    operation: /^GET \/events 200$/,
    pointer: /^\/(status|id|from)$/,
    message: UNKNOWN,
    why: 'the first form of events, sent beside the second up to API 1.51',
  },
  {
    operation: /^GET \/images\/\{name\}\/json 200$/,
    pointer: /^\/(ContainerConfig|DockerVersion|Parent)$/,
    message: UNKNOWN,
    why: 'Parent and DockerVersion are sent up to API 1.51; docker-compose 1.29 fails without ContainerConfig',
  },
  {
    operation: /^GET \/networks 200$/,
    pointer: /^\/\d+\/Containers$/,
    message: UNKNOWN,
    why: 'dockerd sends an empty map in lists up to API 1.51',
  },
  {
    operation: /^GET \/services(\/\{id\})? 200$/,
    pointer: /\/PreviousSpec$/,
    message: UNKNOWN,
    why: 'missing in the description: `service inspect` and rollbacks of clients need it',
  },
  {
    operation: /^GET \/(services|tasks)(\/\{id\})? 200$/,
    pointer: /\/ContainerSpec\/Healthcheck$/,
    message: UNKNOWN,
    why: 'spelt HealthCheck in the description; the Go type says Healthcheck, and so do all clients',
  },
  {
    operation: /^GET \/services(\/\{id\})? 200$/,
    pointer: /\/UpdateStatus\/State$/,
    message: /allowed values/,
    why: 'the description forgot the states of a rollback',
  },
  {
    operation: /^GET \/tasks(\/\{id\})? 200$/,
    pointer: /\/NetworksAttachments\/\d+\/Network\/(ID|Version|CreatedAt|UpdatedAt|Spec|DriverState|IPAMOptions)$/,
    message: UNKNOWN,
    why: "the description gives a host's network; dockerd sends the cluster's object",
  },
  {
    operation: /^GET \/system\/df 200$/,
    pointer: /^\/(LayersSize|Images|Containers|Volumes|BuildCache|BuilderSize)$/,
    message: UNKNOWN,
    why: 'the layout up to API 1.51',
  },
  {
    operation: /^POST \/(configs|secrets)\/create 201$/,
    pointer: /^(\/ID)?$/,
    message: /no such field|'Id'/,
    why: 'spelt Id in the description; dockerd sends ID, and docker-py takes nothing else',
  },
  {
    operation: /^DELETE \/nodes\/\{id\} 400$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'a node that is not down yet: a failed precondition of the managers, which dockerd answers with 400 too',
  },
  {
    operation: /^POST \/exec\/\{id\}\/start 101$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'described for attach only; clients ask for the same upgrade here',
  },
  {
    operation: /^GET \/images\/(json|\{name\}\/json) 200$/,
    pointer: /\/VirtualSize$/,
    message: UNKNOWN,
    before: '1.44',
    why: 'a second name of Size up to API 1.43',
  },
  {
    operation: /^GET \/images\/\{name\}\/json 200$/,
    pointer: /^\/Container$/,
    message: UNKNOWN,
    before: '1.45',
    why: 'sent up to API 1.44',
  },
  {
    operation: /^GET \/images\/\{name\}\/json 200$/,
    pointer: /^\/Config\/(AttachStderr|AttachStdin|AttachStdout|Domainname|Hostname|Image|OpenStdin|StdinOnce|Tty)$/,
    message: UNKNOWN,
    before: '1.50',
    why: "a container's configuration stood for an image's up to API 1.49",
  },
  {
    operation: /^GET \/info 200$/,
    pointer:
      /^\/((Containerd|Init|Runc)Commit\/Expected|RegistryConfig\/AllowNondistributableArtifacts(CIDRs|Hostnames)|BridgeNfIp6?tables)$/,
    message: UNKNOWN,
    before: '1.50',
    why: 'sent up to API 1.48, the last two up to 1.49',
  },
  {
    operation: /^GET \/info 200$/,
    pointer: /^\/Swarm\/Warnings$/,
    message: UNKNOWN,
    why: 'missing in the description; the command prints them',
  },
  {
    operation: /^GET \/containers\/\{id\}\/json 200$/,
    pointer: /^\/HostConfig\/KernelMemory(TCP)?$/,
    message: UNKNOWN,
    before: '1.42',
    why: 'sent back as the command 20.10 sends it',
  },
  {
    operation: /^GET \/(services|tasks)(\/\{id\})? 200$/,
    pointer: /\/Privileges\/(CredentialSpec|SELinuxContext)$/,
    message: /must be object/,
    why: 'pointers in Go without "omitempty": dockerd sends null',
  },
  {
    operation: /^GET \/exec\/\{id\}\/json 200$/,
    pointer: /^\/ExitCode$/,
    message: /must be integer/,
    why: 'null while it runs, as dockerd sends it',
  },
  {
    operation: /^POST \/(volumes\/create 404|swarm\/unlock 401)$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'no such driver, a wrong key: with the statuses that dockerd has for them',
  },
  {
    operation: /^DELETE \/(configs|secrets|networks)\/\{id\} 400$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'in use: a failed precondition of the managers, which dockerd answers with 400 too',
  },
  {
    operation: /^POST \/plugins\/(pull|\{name\}\/upgrade) 200$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'described as 204; dockerd sends progress with 200, and clients read it',
  },
  {
    operation: /^POST \/plugins\/(create|pull|\{name\}\/(enable|disable|set|upgrade|push)) 4\d\d$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'the description leaves most refusals out; dockerd answers them as everywhere else',
  },
  {
    operation: /^(DELETE \/plugins\/\{name\}|GET \/plugins\/privileges) 4\d\d$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'as above',
  },
  {
    operation: /^POST \/(images\/(create|load|\{name\}\/push)|plugins\/\{name\}\/push) 200$/,
    pointer: /^$/,
    message: /a body where none/,
    why: 'progress: a stream of JSON objects that the description leaves open',
  },
]

const isOlder = (url: string, than: string): boolean => {
  const [, minor = 99] = /^\/v1\.(\d+)\//.exec(url) ?? []
  return Number(minor) < Number(than.slice(2))
}

export const isExplained = (v: Violation, x: Exchange): boolean =>
  EXPLAINED.some(
    (e) =>
      e.operation.test(v.operation) &&
      e.pointer.test(v.pointer) &&
      e.message.test(v.message) &&
      (e.before === undefined || isOlder(x.url, e.before)),
  )
