/** What `shoal info` prints, in docker's order and words. */
export const INFO = `Server:
 Containers: {{.Containers}}
  Running: {{.ContainersRunning}}
  Paused: {{.ContainersPaused}}
  Stopped: {{.ContainersStopped}}
 Images: {{.Images}}
 Server Version: {{.ServerVersion}}
 Storage Driver: {{.Driver}}
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
 Experimental: {{.ExperimentalBuild}}
 Live Restore Enabled: {{.LiveRestoreEnabled}}`
