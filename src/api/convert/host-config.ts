import { type ContainerView, type HostConfig, shownLinks } from '../../engine/index.js'

/**
 * What clients find where nothing was asked for: the zero value of each field of the Engine API's HostConfig. Go and Python
 * clients read the fields without a look whether they are there.
 */
const ZERO = {
  Binds: null,
  ContainerIDFile: '',
  PortBindings: null,
  AutoRemove: false,
  VolumeDriver: '',
  VolumesFrom: null,
  ConsoleSize: [0, 0],
  CapAdd: null,
  CapDrop: null,
  Dns: null,
  DnsOptions: null,
  DnsSearch: null,
  ExtraHosts: null,
  GroupAdd: null,
  Cgroup: '',
  Links: null,
  OomScoreAdj: 0,
  PidMode: '',
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: '',
  UsernsMode: '',
  Isolation: '',
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: '',
  BlkioWeight: 0,
  BlkioWeightDevice: null,
  BlkioDeviceReadBps: null,
  BlkioDeviceWriteBps: null,
  BlkioDeviceReadIOps: null,
  BlkioDeviceWriteIOps: null,
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: '',
  CpusetMems: '',
  Devices: null,
  DeviceCgroupRules: null,
  DeviceRequests: null,
  MemoryReservation: 0,
  OomKillDisable: false,
  PidsLimit: null,
  Ulimits: null,
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
} as const

/** HostConfig as GET /containers/{id}/json shows it. */
export function hostConfigJson(c: ContainerView): Record<string, unknown> {
  const host: HostConfig = c.hostConfig
  return {
    ...ZERO,
    ...Object.fromEntries(Object.entries(host).filter(([, v]) => v !== undefined)),
    ...(host.Links?.length ? { Links: shownLinks(c.name, host.Links) } : {}),
  }
}
