import { randomBytes } from 'node:crypto'
import test from 'ava'
import type { ShoalError } from '../../../src/common/index.js'
import { type BackupManifest, readBackup, writeBackup } from '../../../src/manager/backup/index.js'

const MANIFEST: BackupManifest = {
  index: 7,
  term: 3,
  members: [{ raftId: 9, nodeId: 'n', address: '10.0.0.1:2377', learner: false }],
  removed: [4],
}
const PIECES = [randomBytes(300), randomBytes(40)]
const about = (unlockKey: Uint8Array | null) => ({ createdAt: '2026-11-27T00:00:00Z', clusterId: 'c', unlockKey })
const made = (unlockKey: Uint8Array | null = null): Buffer =>
  Buffer.concat([...writeBackup(about(unlockKey), MANIFEST, PIECES)])

/** In pieces of an awkward size, as they come from a socket. */
async function* arriving(file: Buffer, size = 97): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < file.length; i += size) yield file.subarray(i, i + size)
}
const codeOf = (file: Buffer, key: Uint8Array | null = null): Promise<string> =>
  readBackup(arriving(file), key).then(
    () => 'read',
    (e: ShoalError) => e.code,
  )

test('what was written is read again, however it arrives', async (t) => {
  for (const size of [1, 97, 100_000]) {
    const read = await readBackup(arriving(made(), size), null)
    t.deepEqual(read.manifest, MANIFEST)
    t.deepEqual(Buffer.from(read.state), Buffer.concat(PIECES))
    t.is(read.clusterId, 'c')
  }
})

test('every flipped bit and every cut is refused', async (t) => {
  const file = made()
  const seen = new Set<string>()
  for (let i = 0; i < file.length; i++)
    for (const bit of [0, 5, 7]) {
      const bad = Buffer.from(file)
      bad[i]! ^= 1 << bit
      seen.add(await codeOf(bad))
    }
  for (let n = 0; n < file.length; n++) seen.add(await codeOf(file.subarray(0, n)))
  t.deepEqual([...seen].sort(), ['backupDamaged', 'backupVersion', 'notABackup'])
})

test('chunks that are left out, repeated, swapped or added are refused', async (t) => {
  const [head, ...chunks] = [...writeBackup(about(null), MANIFEST, PIECES)] as [Uint8Array, ...Uint8Array[]]
  const [manifest, a, b, last] = chunks as [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
  const of = (...parts: Uint8Array[]): Promise<string> => codeOf(Buffer.concat([head, ...parts]))
  t.is(await of(manifest, a, b, last), 'read')
  for (const parts of [
    [manifest, b, last],
    [manifest, a, a, b, last],
    [manifest, b, a, last],
    [manifest, a, b, last, last],
    [manifest, last],
    [last],
  ])
    t.is(await of(...parts), 'backupDamaged')
  const other = [...writeBackup(about(null), MANIFEST, PIECES)] as Uint8Array[]
  t.is(await of(manifest, other[2]!, b, last), 'backupDamaged')
})

test('a backup of locked managers is read with their unlock key only, and holds no secret in clear', async (t) => {
  const key = randomBytes(32)
  const file = made(key)
  t.is(await codeOf(file, key), 'read')
  t.is(await codeOf(file, null), 'wrongUnlockKey')
  t.is(await codeOf(file, randomBytes(32)), 'wrongUnlockKey')
  for (const piece of PIECES) t.is(file.indexOf(piece.subarray(0, 16)), -1)
})
