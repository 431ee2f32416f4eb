import type { Cli } from './command.js'
import type { Command } from './flags.js'

/** Declares verbs under a parent. */
export type Register = (parent: Command, cli: Cli) => void

interface Entry {
  readonly text: string
  /** Not in the list of commands, as docker hides its older names. */
  readonly hidden?: boolean
  readonly load: () => Promise<Register>
}

const container = async (): Promise<Register> => {
  const parts = await Promise.all([
    import('./container/run.js'),
    import('./container/ls.js'),
    import('./container/lifecycle.js'),
    import('./container/session.js'),
    import('./container/files.js'),
    import('./container/stats.js'),
    import('./container/update.js'),
  ])
  return (parent, cli) => {
    const [run, ls, lifecycle, session, files, stats, update] = parts
    run.registerRun(parent, cli)
    ls.registerLs(parent, cli, 'ls', ['list', 'ps'])
    lifecycle.registerLifecycle(parent, cli)
    session.registerSession(parent, cli)
    files.registerFiles(parent, cli)
    stats.registerStats(parent, cli)
    update.registerUpdate(parent, cli)
  }
}

/** Nouns: their verbs are loaded only when one is asked for. */
export interface CommandTables {
  readonly NOUNS: Readonly<Record<string, Entry>>
  readonly WORDS: Readonly<Record<string, Entry>>
}

export const NOUNS: Readonly<Record<string, Entry>> = {
  builder: { text: 'Manage builds', load: async () => (await import('./image/build.js')).registerBuilder },
  container: { text: 'Manage containers', load: container },
  context: { text: 'Manage contexts', load: async () => (await import('./context/index.js')).registerContext },
  config: { text: 'Manage Swarm configs', load: async () => (await import('./secret/index.js')).registerConfig },
  image: { text: 'Manage images', load: async () => (await import('./image/index.js')).registerImage },
  manifest: {
    text: 'Manage image manifests and manifest lists',
    load: async () => (await import('./manifest/index.js')).registerManifest,
  },
  network: { text: 'Manage networks', load: async () => (await import('./network/index.js')).registerNetwork },
  node: { text: 'Manage Swarm nodes', load: async () => (await import('./node/index.js')).registerNode },
  plugin: { text: 'Manage plugins', load: async () => (await import('./plugin/index.js')).registerPlugin },
  secret: { text: 'Manage Swarm secrets', load: async () => (await import('./secret/index.js')).registerSecret },
  service: { text: 'Manage Swarm services', load: async () => (await import('./service/index.js')).registerService },
  swarm: { text: 'Manage Swarm', load: async () => (await import('./swarm/index.js')).registerSwarm },
  system: { text: 'Manage Shoal', load: async () => (await import('./system/index.js')).registerSystem },
  volume: { text: 'Manage volumes', load: async () => (await import('./volume/index.js')).registerVolume },
}

const run = async (): Promise<Register> => (await import('./container/run.js')).registerRun
const lifecycle = async (): Promise<Register> => (await import('./container/lifecycle.js')).registerLifecycle
const session = async (): Promise<Register> => (await import('./container/session.js')).registerSession
const files = async (): Promise<Register> => (await import('./container/files.js')).registerFiles
const build = async (): Promise<Register> => (await import('./image/build.js')).registerBuild
const transfer = async (): Promise<Register> => (await import('./image/transfer.js')).registerTransfer

/** Words of the first level. Those that are short forms of a noun's verb carry its description. */
export const WORDS: Readonly<Record<string, Entry>> = {
  run: { text: 'Create and run a new container from an image', load: run },
  exec: { text: 'Execute a command in a running container', load: session },
  ps: {
    text: 'List containers',
    load: async () => {
      const { registerLs } = await import('./container/ls.js')
      return (p, cli) => registerLs(p, cli, 'ps', [])
    },
  },
  build: { text: 'Build an image from a Dockerfile', load: build },
  pull: { text: 'Download an image from a registry', load: transfer },
  push: { text: 'Upload an image to a registry', load: transfer },
  images: { text: 'List images', load: async () => (await import('./image/ls.js')).registerImagesAlias },
  login: { text: 'Authenticate to a registry', load: async () => (await import('./login.js')).registerLogin },
  logout: { text: 'Log out from a registry', load: async () => (await import('./login.js')).registerLogin },
  version: {
    text: 'Show the version information',
    load: async () => (await import('./system/version.js')).registerVersion,
  },
  info: { text: 'Display system-wide information', load: async () => (await import('./system/info.js')).registerInfo },
  attach: { text: 'Attach local standard input, output, and error streams to a running container', load: session },
  commit: { text: "Create a new image from a container's changes", load: files },
  completion: {
    text: 'Print a shell completion script',
    load: async () => (await import('./completion.js')).registerCompletion,
  },
  cp: { text: 'Copy files/folders between a container and the local filesystem', load: files },
  create: { text: 'Create a new container', load: run },
  diff: { text: "Inspect changes to files or directories on a container's filesystem", load: files },
  events: {
    text: 'Get real time events from the server',
    load: async () => (await import('./system/events.js')).registerEvents,
  },
  export: { text: "Export a container's filesystem as a tar archive", load: files },
  history: {
    text: 'Show the history of an image',
    load: async () => (await import('./image/index.js')).registerHistory,
  },
  import: { text: 'Import the contents from a tarball to create a filesystem image', load: transfer },
  inspect: {
    text: 'Return low-level information on Shoal objects',
    load: async () => (await import('./system/inspect.js')).registerInspect,
  },
  kill: { text: 'Kill one or more running containers', load: lifecycle },
  load: { text: 'Load an image from a tar archive or STDIN', load: transfer },
  logs: { text: 'Fetch the logs of a container', load: session },
  pause: { text: 'Pause all processes within one or more containers', load: lifecycle },
  port: { text: 'List port mappings or a specific mapping for the container', load: lifecycle },
  rename: { text: 'Rename a container', load: lifecycle },
  restart: { text: 'Restart one or more containers', load: lifecycle },
  rm: { text: 'Remove one or more containers', load: lifecycle },
  rmi: {
    text: 'Remove one or more images',
    load: async () => {
      const { registerRmi } = await import('./image/index.js')
      return (p, cli) => registerRmi(p, cli, 'rmi', [])
    },
  },
  save: { text: 'Save one or more images to a tar archive (streamed to STDOUT by default)', load: transfer },
  start: { text: 'Start one or more stopped containers', load: session },
  stats: {
    text: 'Display a live stream of container(s) resource usage statistics',
    load: async () => (await import('./container/stats.js')).registerStats,
  },
  stop: { text: 'Stop one or more running containers', load: lifecycle },
  tag: { text: 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE', load: transfer },
  top: { text: 'Display the running processes of a container', load: lifecycle },
  unpause: { text: 'Unpause all processes within one or more containers', load: lifecycle },
  update: {
    text: 'Update configuration of one or more containers',
    load: async () => (await import('./container/update.js')).registerUpdate,
  },
  wait: { text: 'Block until one or more containers stop, then print their exit codes', load: lifecycle },
  __complete: {
    text: '',
    hidden: true,
    load: async () => {
      const { registerComplete } = await import('./completion.js')
      return (parent, cli) => registerComplete(parent, cli, { NOUNS, WORDS })
    },
  },
}
