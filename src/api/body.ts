import { invalid } from '../common/index.js'

type Check = 'string' | 'number' | 'boolean' | 'object' | 'array' | 'words' | 'objects' | 'lists'
/** Field name → type, a nested table, or in brackets that of each element; a trailing "[]" of strings; "words" is a string or an array of
 * strings, "objects" an array of objects, "lists" an object of arrays of objects (or nulls). */
export type Shape = {
  readonly [field: string]: Check | 'string[]' | 'string[][]' | 'map' | 'any' | Shape | readonly [Shape]
}

/** The table that a type needs: with it no field of the type is taken unlooked at. */
export type ShapeOf<T> = { readonly [K in keyof T]-?: FieldOf<NonNullable<T[K]>> }
type FieldOf<V> = [V] extends [string]
  ? 'string'
  : [V] extends [number]
    ? 'number'
    : [V] extends [boolean]
      ? 'boolean'
      : [V] extends [readonly string[]]
        ? 'string[]'
        : [V] extends [readonly string[][]]
          ? 'string[][]'
          : [V] extends [readonly (infer E)[]]
            ? readonly [ShapeOf<E>]
            : string extends keyof V
              ? 'map'
              : [keyof V] extends [never]
                ? 'object'
                : ShapeOf<V>

/** Stands for a body that says it is something else than JSON; it is still to be read from the request. */
export class NotJson {
  constructor(readonly contentType: string) {}
}

const typeName = (v: unknown): string => (v === null ? 'null' : Array.isArray(v) ? 'array' : typeof v)

export function checkPresent(body: unknown, what: string): void {
  if (body instanceof NotJson)
    throw invalid('badContentType', `Content-Type specified (${body.contentType}) must be 'application/json'`)
  if (body === undefined || body === null)
    throw invalid('bodyMissing', `${what}: invalid JSON: got EOF while reading request body`)
}

/**
 * The body as an object whose known fields have the right types; null and absent are the same. A wrong type names the
 * field, what came and what is wanted. Fields that the table does not know are kept.
 */
export function object<T extends object>(body: unknown, shape: Shape, what: string): T {
  checkPresent(body, what)
  if (typeof body !== 'object' || Array.isArray(body))
    throw invalid('badBody', `${what}: the body must be a JSON object, not ${typeName(body)}`)
  check(body as Record<string, unknown>, shape, what)
  return body as T
}

/** Go's clients and dockerd do not tell "detachKeys" from "DetachKeys": a field in other letters is the one we know. */
function spellAsKnown(value: Record<string, unknown>, shape: Shape): void {
  const unknown = Object.keys(value).filter((key) => !Object.hasOwn(shape, key))
  if (unknown.length === 0) return
  const known = new Map(Object.keys(shape).map((field) => [field.toLowerCase(), field]))
  for (const key of unknown) {
    const field = known.get(key.toLowerCase())
    if (field === undefined || Object.hasOwn(value, field)) continue
    value[field] = value[key]
    delete value[key]
  }
}

function check(value: Record<string, unknown>, shape: Shape, path: string): void {
  spellAsKnown(value, shape)
  for (const [field, want] of Object.entries(shape)) {
    const v = value[field]
    if (v === undefined || v === null || want === 'any') continue
    const where = `${path}.${field}`
    if (isList(want)) {
      checkObjects(v, where)
      for (const [i, x] of v.entries()) check(x, want[0], `${where}[${i}]`)
    } else if (typeof want === 'object') {
      if (typeof v !== 'object' || Array.isArray(v)) throw wrong(where, v, 'object')
      check(v as Record<string, unknown>, want, where)
    } else if (want === 'string[]' || (want === 'words' && typeof v !== 'string')) {
      checkStrings(v, where)
    } else if (want === 'string[][]') {
      if (!Array.isArray(v)) throw wrong(where, v, 'array of arrays of strings')
      for (const [i, x] of v.entries()) checkStrings(x, `${where}[${i}]`)
    } else if (want === 'map') {
      if (typeof v !== 'object' || Array.isArray(v)) throw wrong(where, v, 'object of strings')
      for (const [k, x] of Object.entries(v)) if (typeof x !== 'string') throw wrong(`${where}.${k}`, x, 'string')
    } else if (want === 'array') {
      if (!Array.isArray(v)) throw wrong(where, v, want)
    } else if (want === 'object') {
      if (typeof v !== 'object' || Array.isArray(v)) throw wrong(where, v, want)
    } else if (want === 'objects') {
      checkObjects(v, where)
    } else if (want === 'lists') {
      if (typeof v !== 'object' || Array.isArray(v)) throw wrong(where, v, 'object')
      for (const [k, x] of Object.entries(v)) if (x !== null) checkObjects(x, `${where}.${k}`)
    } else if (want === 'words') {
      // One string, which the engine takes as one word.
    } else if (typeof v !== want) throw wrong(where, v, want)
    else if (want === 'number' && !Number.isFinite(v)) throw wrong(where, v, 'finite number')
  }
}

const isList = (want: Shape[string]): want is readonly [Shape] => Array.isArray(want)

function checkStrings(v: unknown, where: string): void {
  if (!Array.isArray(v)) throw wrong(where, v, 'array of strings')
  const bad = v.findIndex((x) => typeof x !== 'string')
  if (bad >= 0) throw wrong(`${where}[${bad}]`, v[bad], 'string')
}

function checkObjects(v: unknown, where: string): asserts v is Record<string, unknown>[] {
  if (!Array.isArray(v)) throw wrong(where, v, 'array of objects')
  const bad = v.findIndex((x) => typeof x !== 'object' || x === null || Array.isArray(x))
  if (bad >= 0) throw wrong(`${where}[${bad}]`, v[bad], 'object')
}

const wrong = (where: string, v: unknown, want: string): Error =>
  invalid(
    'badBody',
    `${where}: expected ${want}, got ${typeName(v)} ${JSON.stringify(v)?.slice(0, 80) ?? ''}`.trimEnd(),
  )

const health: Shape = {
  Test: 'string[]',
  Interval: 'number',
  Timeout: 'number',
  StartPeriod: 'number',
  StartInterval: 'number',
  Retries: 'number',
}

export const HOST_CONFIG: Shape = {
  Binds: 'string[]',
  ContainerIDFile: 'string',
  LogConfig: { Type: 'string', Config: 'map' },
  NetworkMode: 'string',
  PortBindings: 'lists',
  RestartPolicy: { Name: 'string', MaximumRetryCount: 'number' },
  AutoRemove: 'boolean',
  VolumeDriver: 'string',
  VolumesFrom: 'string[]',
  Mounts: 'objects',
  ConsoleSize: 'array',
  Annotations: 'map',
  CapAdd: 'words',
  CapDrop: 'words',
  CgroupnsMode: 'string',
  Dns: 'string[]',
  DnsOptions: 'string[]',
  DnsSearch: 'string[]',
  ExtraHosts: 'string[]',
  GroupAdd: 'string[]',
  IpcMode: 'string',
  Links: 'string[]',
  OomScoreAdj: 'number',
  PidMode: 'string',
  Privileged: 'boolean',
  PublishAllPorts: 'boolean',
  ReadonlyRootfs: 'boolean',
  SecurityOpt: 'string[]',
  StorageOpt: 'map',
  Tmpfs: 'map',
  UTSMode: 'string',
  UsernsMode: 'string',
  ShmSize: 'number',
  Sysctls: 'map',
  Runtime: 'string',
  Isolation: 'string',
  CpuShares: 'number',
  Memory: 'number',
  NanoCpus: 'number',
  CgroupParent: 'string',
  BlkioWeight: 'number',
  BlkioWeightDevice: 'objects',
  BlkioDeviceReadBps: 'objects',
  BlkioDeviceWriteBps: 'objects',
  BlkioDeviceReadIOps: 'objects',
  BlkioDeviceWriteIOps: 'objects',
  CpuPeriod: 'number',
  CpuQuota: 'number',
  CpuRealtimePeriod: 'number',
  CpuRealtimeRuntime: 'number',
  CpusetCpus: 'string',
  CpusetMems: 'string',
  Devices: 'objects',
  DeviceCgroupRules: 'string[]',
  DeviceRequests: 'objects',
  KernelMemory: 'number',
  MemoryReservation: 'number',
  MemorySwap: 'number',
  MemorySwappiness: 'number',
  OomKillDisable: 'boolean',
  PidsLimit: 'number',
  Ulimits: 'objects',
  Init: 'boolean',
  MaskedPaths: 'string[]',
  ReadonlyPaths: 'string[]',
}

export const CONTAINER_BODY: Shape = {
  Hostname: 'string',
  Domainname: 'string',
  User: 'string',
  AttachStdin: 'boolean',
  AttachStdout: 'boolean',
  AttachStderr: 'boolean',
  ExposedPorts: 'object',
  Tty: 'boolean',
  OpenStdin: 'boolean',
  StdinOnce: 'boolean',
  Env: 'string[]',
  Healthcheck: health,
  Image: 'string',
  Cmd: 'words',
  Entrypoint: 'words',
  Volumes: 'object',
  WorkingDir: 'string',
  NetworkDisabled: 'boolean',
  MacAddress: 'string',
  OnBuild: 'string[]',
  Labels: 'map',
  StopSignal: 'string',
  StopTimeout: 'number',
  Shell: 'string[]',
  HostConfig: HOST_CONFIG,
  NetworkingConfig: { EndpointsConfig: 'object' },
}

/** With the places where clients of before API 1.18 wrote what belongs to the host. */
export const CREATE_BODY: Shape = { Cpuset: 'string', ...HOST_CONFIG, ...CONTAINER_BODY }

/** What clients of before API 1.24 may give with a start. */
export const START_BODY: Shape = { ...HOST_CONFIG, HostConfig: HOST_CONFIG }

export const EXEC_BODY: Shape = {
  AttachStdin: 'boolean',
  AttachStdout: 'boolean',
  AttachStderr: 'boolean',
  ConsoleSize: 'array',
  DetachKeys: 'string',
  Tty: 'boolean',
  Env: 'string[]',
  Cmd: 'string[]',
  Privileged: 'boolean',
  User: 'string',
  WorkingDir: 'string',
}
