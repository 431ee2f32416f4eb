import type { Cli, Command } from '../command.js'
import { compile } from '../format/template.js'
import { binarySize } from '../format/units.js'
import { contextName } from '../host.js'

export function registerInfo(parent: Command, cli: Cli): void {
  parent
    .command('info')
    .description('Display system-wide information')
    .option('-f, --format <format>', 'format output using a custom template')
    .action(async (f: { format?: string }) => {
      const top = parent.parent ?? parent
      const Context = contextName(top.opts())
      const client = { Context, Debug: top.opts().debug === true }
      const info = await (await cli.api()).get<
        Record<string, unknown> & { Warnings?: string[] | null; Swarm: { Warnings?: string[] | null } }
      >('/info')
      const warnings = [...(info.Warnings ?? []), ...(info.Swarm.Warnings ?? [])]
      if (f.format === 'json') cli.out(`${JSON.stringify({ ...info, ClientInfo: client })}\n`)
      else if (f.format) cli.out(`${compile(f.format)({ ...info, ClientInfo: client })}\n`)
      else {
        cli.out(`Client:\n Context:    ${Context}\n Debug Mode: ${client.Debug}\n\n`)
        cli.out(`${compile(INFO)({ ...info, Memory: binarySize(Number(info.MemTotal)) })}\n\n`)
        for (const w of warnings) cli.err(`${w}\n`)
      }
    })
}

/** What `shoal info` prints, in docker's order and words. */
export const INFO = `Server:
 Containers: {{.Containers}}
  Running: {{.ContainersRunning}}
  Paused: {{.ContainersPaused}}
  Stopped: {{.ContainersStopped}}
 Images: {{.Images}}
 Server Version: {{.ServerVersion}}
 Storage Driver: {{.Driver}}{{range .DriverStatus}}
  {{index . 0}}: {{index . 1}}{{end}}
 Logging Driver: {{.LoggingDriver}}
 Cgroup Driver: {{.CgroupDriver}}
 Cgroup Version: {{.CgroupVersion}}
 Plugins:
  Volume: {{join .Plugins.Volume " "}}
  Network: {{join .Plugins.Network " "}}
  Log: {{join .Plugins.Log " "}}
 Swarm: {{.Swarm.LocalNodeState}}{{if .Swarm.NodeID}}
  NodeID: {{.Swarm.NodeID}}{{if .Swarm.Error}}
  Error: {{.Swarm.Error}}{{end}}
  Is Manager: {{.Swarm.ControlAvailable}}{{if .Swarm.Cluster}}
  ClusterID: {{.Swarm.Cluster.ID}}
  Managers: {{.Swarm.Managers}}
  Nodes: {{.Swarm.Nodes}}
  Data Path Port: {{.Swarm.Cluster.DataPathPort}}
  Orchestration:
   Task History Retention Limit: {{.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit}}
  Raft:
   Snapshot Interval: {{.Swarm.Cluster.Spec.Raft.SnapshotInterval}}
   Number of Old Snapshots to Retain: {{.Swarm.Cluster.Spec.Raft.KeepOldSnapshots}}
   Heartbeat Tick: {{.Swarm.Cluster.Spec.Raft.HeartbeatTick}}
   Election Tick: {{.Swarm.Cluster.Spec.Raft.ElectionTick}}
  Autolock Managers: {{.Swarm.Cluster.Spec.EncryptionConfig.AutoLockManagers}}
  Root Rotation In Progress: {{.Swarm.Cluster.RootRotationInProgress}}{{end}}
  Node Address: {{.Swarm.NodeAddr}}{{if .Swarm.RemoteManagers}}
  Manager Addresses:{{range .Swarm.RemoteManagers}}
   {{.Addr}}{{end}}{{end}}{{end}}
 Runtimes:{{range $name, $r := .Runtimes}} {{$name}}{{end}}
 Default Runtime: {{.DefaultRuntime}}
{{if .InitBinary}} Init Binary: {{.InitBinary}}
{{end}} Security Options:{{range .SecurityOptions}}
  {{.}}{{end}}
 Kernel Version: {{.KernelVersion}}
 Operating System: {{.OperatingSystem}}
 OSType: {{.OSType}}
 Architecture: {{.Architecture}}
 CPUs: {{.NCPU}}
 Total Memory: {{.Memory}}
 Name: {{.Name}}
 ID: {{.ID}}
 Shoal Root Dir: {{.DockerRootDir}}
 Debug Mode: {{.Debug}}
 Experimental: {{.ExperimentalBuild}}{{if .Labels}}
 Labels:{{range .Labels}}
  {{.}}{{end}}{{end}}{{if .RegistryConfig}}
 Insecure Registries:{{range $name, $r := .RegistryConfig.IndexConfigs}}{{if not $r.Secure}}
  {{$name}}{{end}}{{end}}{{range .RegistryConfig.InsecureRegistryCIDRs}}
  {{.}}{{end}}{{if .RegistryConfig.Mirrors}}
 Registry Mirrors:{{range .RegistryConfig.Mirrors}}
  {{.}}{{end}}{{end}}{{end}}
 Live Restore Enabled: {{.LiveRestoreEnabled}}{{if .DefaultAddressPools}}
 Default Address Pools:{{range .DefaultAddressPools}}
   Base: {{.Base}}, Size: {{.Size}}{{end}}{{end}}`
