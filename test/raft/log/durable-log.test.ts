import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { Level } from 'level'
import { nullLogger, ShoalError } from '../../../src/common/index.js'
import { type Disk, nodeDisk, verifyLog } from '../../../src/raft/log/index.js'
import { crc32c } from '../../../src/raft/log/level-check.js'
import { content, entry, FRESH, hard, OWNER, open, range, scratch } from './fixture.js'

const CONF = { voters: [4711], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
const MEMBERSHIP = { members: [{ raftId: 4711, nodeId: OWNER, address: '127.0.0.1:1' }], removed: [13] }

const kept = (entries: number) => ({ entries, bytes: 1_000_000, bytesWhileSent: 0 })

function* filesUnder(dir: string): Generator<string> {
  for (const name of readdirSync(dir)) {
    const path = join(dir, name)
    if (statSync(path).isDirectory()) yield* filesUnder(path)
    else yield path
  }
}

const writeAheadFile = (dir: string): string =>
  [...filesUnder(join(dir, 'e1/log'))]
    .filter((f) => f.endsWith('.log'))
    .sort()
    .at(-1)!

test('what was appended is there after a reopen, with the conflicting tail replaced', async (t) => {
  const dir = await scratch()
  let log = await open(dir, FRESH)
  await log.append(range(1, 10), hard(1, 4, 7))
  await log.append([entry(8, 2), entry(9, 2)], hard(2, 8))
  const before = content(log)
  await log.close()
  log = await open(dir)
  t.deepEqual(content(log), before)
  t.is(log.lastIndex(), 9)
  t.is(log.term(9), 2)
  t.is(log.term(7), 1)
  t.is(log.term(10), 'unavailable')
  t.deepEqual(log.hardState, hard(2, 8))
  t.is(log.boots, 2)
  await log.close()
  rmSync(dir, { recursive: true })
})

test('entries are cut by size, at least one is given', async (t) => {
  const dir = await scratch()
  const log = await open(dir, FRESH)
  await log.append(range(1, 10), hard(1, 0))
  t.is((log.entries(3, 8, 0) as unknown[]).length, 1)
  t.is((log.entries(3, 8, Number.MAX_SAFE_INTEGER) as unknown[]).length, 5)
  t.is(log.entries(3, 12, 100), 'unavailable')
  await log.close()
  rmSync(dir, { recursive: true })
})

test('an absent log, a second log in its place, and a log of another node are refused by name', async (t) => {
  const dir = await scratch()
  await t.throwsAsync(open(dir), { code: 'noRaftState' })
  const log = await open(dir, FRESH)
  await log.append(range(1, 2), hard(1, 0))
  await t.throwsAsync(open(dir), { code: 'logLocked' })
  await log.close()
  await t.throwsAsync(open(dir, FRESH), { code: 'raftStateExists' })
  await t.throwsAsync(open(dir, null, { nodeId: 'another' }), { code: 'damaged' })
  rmSync(dir, { recursive: true })
})

for (const shape of ['write-ahead file', 'table'] as const)
  test(`a flipped bit in any byte of a log in a ${shape} is noticed, with file, record and remedy`, async (t) => {
    t.timeout(240_000)
    const dir = await scratch()
    let log = await open(dir, FRESH)
    for (let i = 1; i <= 6; i++) await log.append([entry(i)], hard(1, i - 1, 9))
    // Nothing is compacted away: a lost deletion of what no one reads would be harmless, and blur the count.
    await log.saveSnapshot(
      { index: 3, term: 1, confState: CONF },
      MEMBERSHIP,
      [Buffer.from('state of three')],
      kept(100),
    )
    await log.close()
    if (shape === 'table') {
      // LevelDB moves what its write-ahead file held into a table when it opens.
      log = await open(dir)
      await log.close()
    }
    let noticed = 0
    for (const file of [...filesUnder(dir)]) {
      const bytes = readFileSync(file)
      // LevelDB's diary and lock hold nothing of ours.
      if (/\/(LOG|LOG\.old|LOCK)$/.test(file)) continue
      for (let at = 0; at < bytes.length; at++) {
        const copy = cp(dir, `${dir}-flip`)
        const changed = Buffer.from(bytes)
        changed[at]! ^= 1 << (at % 8)
        const place = file.replace(dir, copy)
        writeFileSync(place, changed)
        const what = `${file} byte ${at}`
        const e = await t.throwsAsync(openWhole(copy), { instanceOf: ShoalError, code: 'damaged' }, what)
        if (e === undefined) continue
        const named = e.fields as { file: string; record: string }
        // Of a database's write-ahead file only the whole knows what is missing.
        t.true(place === named.file || place.startsWith(`${named.file}/`), `${what}: ${e.message}`)
        t.true(
          named.record.length > 0 && e.message.includes(`${named.file}: ${named.record} `),
          `${what}: ${e.message}`,
        )
        t.regex(e.message, /; remove this manager from the cluster and join it again, or restore a backup/)
        noticed++
      }
    }
    t.log(`${noticed} flipped bits noticed`)
    t.true(noticed > 2000)
    for (const suffix of ['', '-flip']) rmSync(dir + suffix, { recursive: true, force: true })
  })

function cp(from: string, to: string): string {
  rmSync(to, { recursive: true, force: true })
  cpSync(from, to, { recursive: true })
  return to
}

/** As a start does: the log, then the snapshot's content. */
async function openWhole(dir: string): Promise<void> {
  const log = await open(dir)
  try {
    await whole(log)
  } finally {
    await log.close()
  }
}

async function whole(log: Awaited<ReturnType<typeof open>>): Promise<string> {
  const pieces: Uint8Array[] = []
  for await (const p of log.currentSnapshot()!.pieces()) pieces.push(p)
  return Buffer.concat(pieces).toString()
}

test('the checksum of tables is CRC-32C, whatever the length', (t) => {
  // RFC 3720, appendix B.4.
  t.is(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.is(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.is(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e)
  t.is(crc32c(Buffer.from('123456789')), 0xe3069283)
  t.is(crc32c(Buffer.alloc(0)), 0)
})

test('a torn last batch that no one was told of is forgotten, an acknowledged one is damage', async (t) => {
  const dir = await scratch()
  let log = await open(dir, FRESH)
  await log.append(range(1, 5), hard(1, 2))
  const witness = readFileSync(join(dir, 'e1/witness'))
  const size = statSync(writeAheadFile(dir)).size
  await log.append(range(6, 9), hard(1, 5))
  await log.close()
  const torn = cp(dir, `${dir}-torn`)
  truncateSync(writeAheadFile(torn), Math.floor((size + statSync(writeAheadFile(dir)).size) / 2))
  const e = await t.throwsAsync(open(torn), { instanceOf: ShoalError, code: 'damaged' })
  t.regex(e!.message, /batch \d+ is missing.*remove this manager.*restore a backup/)
  t.deepEqual(e!.fields, { file: `${torn}/e1/log`, record: 'batch 3' })
  cp(dir, torn)
  truncateSync(writeAheadFile(torn), Math.floor((size + statSync(writeAheadFile(dir)).size) / 2))
  writeFileSync(join(torn, 'e1/witness'), witness)
  log = await open(torn)
  t.is(log.lastIndex(), 5)
  t.deepEqual(log.hardState, hard(1, 2))
  await log.append(range(6, 6), hard(1, 5))
  await log.close()
  rmSync(dir, { recursive: true })
  rmSync(torn, { recursive: true })
})

test('records that vanish, come back, or move to another key are damage', async (t) => {
  const dir = await scratch()
  const log = await open(dir, FRESH)
  await log.append(range(1, 5), hard(1, 2))
  const old = cp(dir, `${dir}-old`)
  await log.append([entry(3, 2), entry(4, 2), entry(5, 2)], hard(2, 2))
  await log.close()
  const tamper = async (change: (db: Level<Buffer, Buffer>) => Promise<void>): Promise<void> => {
    const copy = cp(dir, `${dir}-copy`)
    const db = new Level<Buffer, Buffer>(join(copy, 'e1/log'), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await change(db)
    await db.close()
    await t.throwsAsync(open(copy), { code: 'damaged' })
  }
  const key = (i: number): Buffer => Buffer.from([0x65, 0, 0, 0, 0, 0, 0, 0, i])
  const before = new Level<Buffer, Buffer>(join(old, 'e1/log'), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  const stale = (await before.get(key(4)))!
  const staleHead = (await before.get(Buffer.from('h')))!
  await before.close()
  await tamper((db) => db.del(key(3)))
  await tamper((db) => db.del(key(5)))
  await tamper((db) => db.del(key(1)))
  await tamper((db) => db.put(key(4), stale))
  await tamper((db) => db.put(Buffer.from('h'), staleHead))
  await tamper(async (db) => db.put(key(6), (await db.get(key(5)))!))
  await tamper((db) => db.del(Buffer.from('h')))
  await tamper((db) => db.del(Buffer.from('s')))
  await tamper((db) => db.put(Buffer.from('z'), Buffer.from('?')))
  await tamper((db) => db.clear())
  for (const d of [dir, old, `${dir}-copy`]) rmSync(d, { recursive: true })
})

test('a process killed while it appends loses nothing that it acknowledged', async (t) => {
  t.timeout(120_000)
  const dir = await scratch()
  await (await open(dir, FRESH)).close()
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, [fileURLToPath(new URL('./append-child.js', import.meta.url)), dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let text = ''
    const enough = 30 + round * 17
    child.stdout.on('data', (d) => {
      text += d
      if (text.split('\n').length > enough) child.kill('SIGKILL')
    })
    const [, signal] = await once(child, 'close')
    t.is(signal, 'SIGKILL')
    const acknowledged = Number(text.split('\n').at(-2))
    const log = await open(dir)
    t.true(log.lastIndex() >= acknowledged, `${acknowledged} acknowledged, ${log.lastIndex()} found`)
    await log.close()
  }
  rmSync(dir, { recursive: true })
})

test('a snapshot makes the log shorter, keeps some entries, and comes back after a reopen', async (t) => {
  const dir = await scratch()
  let log = await open(dir, FRESH)
  await log.append(range(1, 100), hard(1, 100))
  const pieces = [Buffer.alloc(1_000_000, 1), Buffer.alloc(500_000, 2)]
  await log.saveSnapshot({ index: 90, term: 1, confState: CONF }, MEMBERSHIP, pieces, kept(20))
  t.is(log.firstIndex(), 71)
  t.is(log.term(70), 1)
  t.is(log.entries(70, 72, 1000), 'compacted')
  await log.saveSnapshot({ index: 95, term: 1, confState: CONF }, MEMBERSHIP, pieces, kept(20))
  t.deepEqual(readdirSync(join(dir, 'e1/snap')), ['1-95'])
  const before = content(log)
  await log.close()
  log = await open(dir)
  t.deepEqual(content(log), before)
  t.deepEqual(log.membership, MEMBERSHIP)
  t.deepEqual(log.initialState().confState, CONF)
  t.is(Buffer.from(await whole(log)).length, Buffer.concat(pieces).toString().length)
  await log.close()
  t.deepEqual(await verifyLog({ dir, nodeId: OWNER, kek: null, disk: nodeDisk(), logger: nullLogger }), {
    lastIndex: 100,
    snapshotIndex: 95,
    commit: 100,
  })
  rmSync(dir, { recursive: true })
})

test('entries are kept behind a snapshot by number and by bytes, and for the receiver of one that is sent', async (t) => {
  const dir = await scratch()
  let log = await open(dir, FRESH)
  const sized = (from: number, to: number) => range(from, to).map((e) => ({ ...e, data: Buffer.alloc(100) }))
  const take = (index: number, keep: Parameters<typeof log.saveSnapshot>[3]) =>
    log.saveSnapshot({ index, term: 1, confState: CONF }, MEMBERSHIP, [Buffer.from('state')], keep)
  await log.append(sized(1, 50), hard(1, 50))
  t.is(log.bytesSinceSnapshot, 5000)
  await take(40, { entries: 30, bytes: 1050, bytesWhileSent: 0 })
  t.is(log.firstIndex(), 31, 'ten of them are 1000 bytes')
  t.is(log.bytesSinceSnapshot, 1000, 'what is in the snapshot is not due for one again')
  await log.close()
  log = await open(dir)
  t.is(log.bytesSinceSnapshot, 1000)
  const unpin = log.pinSnapshot()
  await log.append(sized(51, 70), hard(1, 70))
  await take(60, { entries: 5, bytes: 1_000_000, bytesWhileSent: 1_000_000 })
  t.is(log.firstIndex(), 41, 'whoever gets snapshot 40 needs entry 41 next')
  t.is(log.bytesSinceSnapshot, 1000)
  await take(65, { entries: 5, bytes: 1_000_000, bytesWhileSent: 2900 })
  t.is(log.firstIndex(), 61, 'but not at any price')
  unpin()
  await take(70, { entries: 5, bytes: 1_000_000, bytesWhileSent: 1_000_000 })
  t.is(log.firstIndex(), 66)
  t.is(log.bytesSinceSnapshot, 0)
  await log.close()
  rmSync(dir, { recursive: true })
})

test('a received snapshot replaces the whole log at once; half a one is swept away', async (t) => {
  const dir = await scratch()
  let log = await open(dir, FRESH)
  await log.append(range(1, 10), hard(1, 5))
  const half = await log.createSnapshot(3, 70)
  await half.write(Buffer.from('never finished'))
  const writer = await log.createSnapshot(3, 50)
  await writer.write(Buffer.from('fifty'))
  const digest = await log.receiveSnapshot(writer)
  // Entries after it are committed as well, but come with the next write.
  await log.installSnapshot({ index: 50, term: 3, confState: CONF }, MEMBERSHIP, digest, hard(3, 51))
  t.is(log.lastIndex(), 50)
  t.is(log.term(50), 3)
  const between = await open(cp(dir, `${dir}-between`))
  t.deepEqual([between.hardState, between.lastIndex()], [hard(3, 50), 50], 'a crash before that write')
  await between.close()
  rmSync(`${dir}-between`, { recursive: true })
  await log.append([entry(51, 3)], hard(3, 51))
  await log.close()
  log = await open(dir)
  t.is(log.lastIndex(), 51)
  t.is(await whole(log), 'fifty')
  t.deepEqual(readdirSync(join(dir, 'e1/snap')), ['3-50'])
  await log.close()
  await half.abort()
  // Cut at the border of a chunk: only the end mark tells.
  const file = join(dir, 'e1/snap/3-50')
  truncateSync(file, 4 + readFileSync(file).readUInt32BE())
  log = await open(dir)
  await t.throwsAsync(whole(log), { code: 'damaged' })
  await log.close()
  rmSync(dir, { recursive: true })
})

test('with autolock turned on no file holds the old key or what it sealed, and only the right key opens', async (t) => {
  const dir = await scratch()
  const kek = Buffer.alloc(32, 7)
  const other = Buffer.alloc(32, 8)
  let log = await open(dir, FRESH)
  await log.append([entry(1, 1, 'a well known secret')], hard(1, 1))
  await log.append(range(2, 50), hard(1, 50))
  await log.saveSnapshot(
    { index: 40, term: 1, confState: CONF },
    MEMBERSHIP,
    [Buffer.from('a well known secret')],
    kept(10),
  )
  const oldKey = (JSON.parse(readFileSync(join(dir, 'keys.json'), 'utf8').slice(65)) as { dek: string }).dek
  const pending = [log.append([entry(51)], hard(1, 50)), log.rotateKek(kek), log.append([entry(52)], hard(1, 51))]
  await Promise.all(pending)
  const before = content(log)
  await log.close()
  for (const file of filesUnder(dir)) {
    const text = readFileSync(file)
    t.false(text.includes('a well known secret'), file)
    t.false(text.includes(oldKey) || text.includes(Buffer.from(oldKey, 'hex')), file)
  }
  t.false(existsSync(join(dir, 'e1')))
  t.is(statSync(join(dir, 'keys.json')).mode & 0o777, 0o600)
  await t.throwsAsync(open(dir), { code: 'wrongUnlockKey' })
  await t.throwsAsync(open(dir, null, { kek: other }), { code: 'wrongUnlockKey' })
  log = await open(dir, null, { kek })
  t.deepEqual(content(log), before)
  t.is(await whole(log), 'a well known secret')
  await log.rotateKek(other)
  await log.append([entry(53)], hard(1, 52))
  await log.close()
  await t.throwsAsync(open(dir, null, { kek }), { code: 'wrongUnlockKey' })
  log = await open(dir, null, { kek: other })
  t.is(log.lastIndex(), 53)
  await log.rotateKek(null)
  await log.close()
  log = await open(dir)
  t.is(log.lastIndex(), 53)
  await log.close()
  appendFileSync(join(dir, 'keys.json'), ' ')
  await t.throwsAsync(open(dir), { code: 'damaged' })
  rmSync(dir, { recursive: true })
})

test('a received snapshot is installed after the data key changed; one that still arrives has to come again', async (t) => {
  const dir = await scratch()
  const kek = Buffer.alloc(32, 7)
  let log = await open(dir, FRESH)
  await log.append(range(1, 10), hard(1, 5))
  const early = await log.createSnapshot(3, 50)
  await early.write(Buffer.from('fifty'))
  const digest = await log.receiveSnapshot(early)
  const late = await log.createSnapshot(3, 60)
  await late.write(Buffer.from('sixty'))
  const meta = { index: 50, term: 3, confState: CONF }
  const rotated = log.rotateKek(kek)
  // As the member's writes queue up behind the change: an append, and the order to install.
  const appended = log.append([entry(11)], hard(1, 5))
  const installed = log.installSnapshot(meta, MEMBERSHIP, digest, hard(3, 50))
  await Promise.all([rotated, appended, installed])
  t.is(log.lastIndex(), 50)
  t.is(await whole(log), 'fifty')
  await t.throwsAsync(log.receiveSnapshot(late))
  await log.append([entry(51, 3)], hard(3, 50))
  await log.close()
  log = await open(dir, null, { kek })
  t.is(log.lastIndex(), 51)
  t.is(await whole(log), 'fifty')
  await log.close()
  for (const file of filesUnder(dir)) t.false(readFileSync(file).includes('fifty'), file)
  rmSync(dir, { recursive: true })
})

test('a crash before the new key is saved opens with the old one and sweeps the new directory away', async (t) => {
  const dir = await scratch()
  const real = nodeDisk()
  let failNow = false
  const disk: Disk = {
    ...real,
    replaceFile: (path, bytes) => (failNow ? Promise.reject(new Error('crash')) : real.replaceFile(path, bytes)),
  }
  let log = await open(dir, FRESH, { disk })
  await log.append(range(1, 5), hard(1, 5))
  failNow = true
  await t.throwsAsync(log.rotateKek(Buffer.alloc(32, 1)), { code: 'logWriteFailed' })
  await t.throwsAsync(log.append(range(6, 6), hard(1, 5)), { code: 'logWriteFailed' }, 'a failed write is final')
  await log.close()
  t.true(existsSync(join(dir, 'e2')))
  log = await open(dir)
  t.is(log.lastIndex(), 5)
  t.false(existsSync(join(dir, 'e2')))
  await log.close()
  rmSync(dir, { recursive: true })
})
