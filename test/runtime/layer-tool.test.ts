import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { ShoalError } from '../../src/common/index.js'
import { type ApplyOptions, LayerTool } from '../../src/runtime/index.js'
import { LAYER_TOOL, noise, streamOf, type TarEntry, tarOf, temporaryDirectory, tool, xattrsOf } from './image-kit.js'

const sha = (b: Buffer): string => `sha256:${createHash('sha256').update(b).digest('hex')}`

async function apply(
  t: ExecutionContext,
  tar: Buffer,
  options: Partial<ApplyOptions> = {},
): Promise<{ root: string; result: Record<string, unknown>; dir: string }> {
  const dir = temporaryDirectory(t)
  const root = join(dir, 'root')
  mkdirSync(root)
  const result = await tool.apply({ root, ...options }).consume(streamOf(tar))
  return { root, result, dir }
}

/** The error, and proof that nothing was made outside of the root. */
async function refused(
  t: ExecutionContext,
  entries: readonly TarEntry[],
  options: Partial<ApplyOptions> = {},
): Promise<ShoalError> {
  const dir = temporaryDirectory(t)
  const root = join(dir, 'root')
  mkdirSync(root)
  writeFileSync(join(dir, 'outside'), 'untouched')
  const e = await t.throwsAsync(tool.apply({ root, ...options }).consume(streamOf(tarOf(entries))), {
    instanceOf: ShoalError,
  })
  t.is(readFileSync(join(dir, 'outside'), 'utf8'), 'untouched')
  t.deepEqual(readdirSync(dir).sort(), ['outside', 'root'])
  return e!
}

const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex')

const RICH: readonly TarEntry[] = [
  { name: './', type: 'directory', mode: 0o711, mtime: '1500000000.5' },
  {
    name: 'dir/',
    type: 'directory',
    mode: 0o2750,
    uid: 12,
    gid: 34,
    mtime: '1600000000.123456789',
    xattrs: { 'user.d': Buffer.from('v') },
  },
  { name: 'dir/file', data: 'content', mode: 0o4755, uid: 1000, gid: 1001, mtime: '1600000001.987654321' },
  { name: 'dir/hard', type: 'hardlink', link: 'dir/file' },
  { name: 'dir/hard2', type: 'hardlink', link: './dir/hard' },
  {
    name: 'cap',
    data: 'x',
    mode: 0o755,
    xattrs: { 'security.capability': CAPABILITY, 'user.bin': Buffer.from([0, 1, 255, 10]) },
  },
  { name: 'null', type: 'char', device: [1, 3], mode: 0o666 },
  { name: 'loop', type: 'block', device: [7, 5] },
  { name: 'pipe', type: 'fifo' },
  { name: 'abs', type: 'symlink', link: '/etc/passwd', mtime: '1600000002.000000001' },
  { name: 'up', type: 'symlink', link: '../../../../etc/passwd' },
  { name: `${'long'.repeat(60)}/${'name'.repeat(60)}`, data: 'l' },
  { name: 'ünïcode-😀', data: 'u' },
  { name: Buffer.from([0x6e, 0xff, 0xfe, 0x6f]), data: 'raw' },
  { name: 'link-to-long', type: 'symlink', link: 'x'.repeat(300) },
]

test('every kind of entry is kept: owners, modes, nanoseconds, links, attributes, devices, long and raw names', async (t) => {
  const { root } = await apply(t, tarOf(RICH))
  const ns = (p: string): bigint => lstatSync(join(root, p), { bigint: true }).mtimeNs
  const dir = lstatSync(join(root, 'dir'))
  t.deepEqual([dir.mode & 0o7777, dir.uid, dir.gid], [0o2750, 12, 34])
  t.is(ns('dir'), 1600000000123456789n)
  t.is(ns('.'), 1500000000500000000n)
  const file = lstatSync(join(root, 'dir/file'))
  t.deepEqual([file.mode & 0o7777, file.uid, file.gid, file.nlink], [0o4755, 1000, 1001, 3])
  t.is(ns('dir/file'), 1600000001987654321n)
  t.is(lstatSync(join(root, 'dir/hard2')).ino, file.ino)
  t.deepEqual(xattrsOf(join(root, 'cap')), {
    'security.capability': CAPABILITY.toString('hex'),
    'user.bin': '0001ff0a',
  })
  t.deepEqual(xattrsOf(join(root, 'dir')), { 'user.d': '76' })
  const nul = lstatSync(join(root, 'null'))
  t.true(nul.isCharacterDevice())
  t.deepEqual([nul.rdev, nul.mode & 0o777], [(1 << 8) | 3, 0o666])
  t.true(lstatSync(join(root, 'loop')).isBlockDevice())
  t.true(lstatSync(join(root, 'pipe')).isFIFO())
  t.is(readlinkSync(join(root, 'abs')), '/etc/passwd')
  t.is(ns('abs'), 1600000002000000001n)
  t.is(readlinkSync(join(root, 'up')), '../../../../etc/passwd')
  t.is(readFileSync(join(root, 'long'.repeat(60), 'name'.repeat(60)), 'utf8'), 'l')
  t.is(readFileSync(join(root, 'ünïcode-😀'), 'utf8'), 'u')
  t.is(readFileSync(Buffer.concat([Buffer.from(`${root}/n`), Buffer.from([0xff, 0xfe, 0x6f])]), 'utf8'), 'raw')
  t.is(readlinkSync(join(root, 'link-to-long')).length, 300)
})

test('packing what was unpacked and unpacking it again gives the same bytes a second time', async (t) => {
  const { root, dir } = await apply(t, tarOf(RICH))
  const first = await tool.packLayer(root, join(dir, 'first.gz'))
  const second = await apply(t, readFileSync(join(dir, 'first.gz')))
  t.is(second.result.diffId, first.diffId)
  t.is(second.result.compressedDigest, first.compressedDigest)
  const again = await tool.packLayer(second.root, join(dir, 'second.gz'))
  t.is(again.compressedDigest, first.compressedDigest)
  t.is(lstatSync(join(second.root, 'dir/hard')).nlink, 3)
  t.deepEqual(xattrsOf(join(second.root, 'cap')), xattrsOf(join(root, 'cap')))
})

test('packed times are whole seconds, as dockerd writes them, also where an entry has an extended header', async (t) => {
  const { root, dir } = await apply(t, tarOf(RICH))
  await tool.packLayer(root, join(dir, 'layer.gz'))
  const again = await apply(t, readFileSync(join(dir, 'layer.gz')))
  // "dir" has attributes, and with them an extended header; the others have none.
  for (const name of ['dir', 'dir/file', 'abs']) {
    const [before, after] = [root, again.root].map((r) => lstatSync(join(r, name), { bigint: true }).mtimeNs)
    t.is(after, before! - (before! % 1_000_000_000n), name)
  }
})

test('digests are of the tar and of the stream as it came, whatever the compression', async (t) => {
  const tar = tarOf([{ name: 'a', data: noise(300_000) }])
  const packed = gzipSync(tar)
  const plain = await apply(t, tar)
  t.like(plain.result, { diffId: sha(tar), compressedDigest: sha(tar), compression: 'none', sizeBytes: 300_000 })
  const zipped = await apply(t, packed)
  t.like(zipped.result, {
    diffId: sha(tar),
    compressedDigest: sha(packed),
    compressedBytes: packed.length,
    compression: 'gzip',
  })
  // Members one after another are one stream (RFC 1952 §2.2).
  const members = Buffer.concat([gzipSync(tar.subarray(0, 1000)), gzipSync(tar.subarray(1000))])
  t.like((await apply(t, members)).result, { diffId: sha(tar), compressedDigest: sha(members) })
  // Bytes behind the end of the archive belong to the digests.
  const tail = Buffer.concat([tar, Buffer.alloc(10240)])
  t.like((await apply(t, tail)).result, { diffId: sha(tail), compressedDigest: sha(tail) })
  t.like((await apply(t, Buffer.alloc(0))).result, { diffId: sha(Buffer.alloc(0)), entries: 0 })
})

test('a kept blob is taken up again where it ended', async (t) => {
  const dir = temporaryDirectory(t)
  const packed = gzipSync(tarOf([{ name: 'a', data: noise(200_000) }]))
  const blob = join(dir, 'blob')
  writeFileSync(blob, packed.subarray(0, 70_001))
  mkdirSync(join(dir, 'root'))
  const r = await tool.apply({ root: join(dir, 'root'), blob, resume: true }).consume(streamOf(packed.subarray(70_001)))
  t.is(r.compressedDigest, sha(packed))
  t.is(sha(readFileSync(blob)), sha(packed))
  t.is(statSync(join(dir, 'root/a')).size, 200_000)
})

test('a sparse file keeps its holes both ways', async (t) => {
  const dir = temporaryDirectory(t)
  mkdirSync(join(dir, 'in'))
  const { openSync, writeSync, closeSync, ftruncateSync } = await import('node:fs')
  const fd = openSync(join(dir, 'in/sparse'), 'w')
  writeSync(fd, 'head', 0)
  writeSync(fd, 'middle', 50 << 20)
  ftruncateSync(fd, 100 << 20)
  closeSync(fd)
  closeSync(openSync(join(dir, 'in/all-hole'), 'w'))
  const { truncateSync } = await import('node:fs')
  truncateSync(join(dir, 'in/all-hole'), 10 << 20)
  const r = await tool.packLayer(join(dir, 'in'), join(dir, 'layer.gz'))
  t.true(r.tarBytes < 1 << 20)
  const { root } = await apply(t, readFileSync(join(dir, 'layer.gz')))
  const st = statSync(join(root, 'sparse'))
  t.is(st.size, 100 << 20)
  t.true(st.blocks * 512 < 1 << 20)
  const data = readFileSync(join(root, 'sparse'))
  t.is(data.subarray(50 << 20, (50 << 20) + 6).toString(), 'middle')
  t.is(statSync(join(root, 'all-hole')).size, 10 << 20)
  t.is(statSync(join(root, 'all-hole')).blocks, 0)
})

test('whiteouts and opaque directories become the overlay ones and come back', async (t) => {
  const { root, dir } = await apply(
    t,
    tarOf([
      { name: 'd/', type: 'directory' },
      { name: 'd/.wh.gone' },
      { name: 'o/', type: 'directory' },
      { name: 'o/.wh..wh..opq' },
      { name: 'o/kept', data: 'k' },
      { name: '.wh..wh.plnk', data: 'aufs' },
      // Deleted and made anew in one layer, in both orders: what is new hides what was.
      { name: '.wh.first' },
      { name: 'first/', type: 'directory' },
      { name: 'second/', type: 'directory' },
      { name: '.wh.second' },
      { name: '.wh.file' },
      { name: 'file', data: 'new' },
      { name: '.wh.deep' },
      { name: 'deep/inner/leaf', data: 'l' },
    ]),
  )
  const gone = lstatSync(join(root, 'd/gone'))
  t.true(gone.isCharacterDevice())
  t.is(gone.rdev, 0)
  for (const d of ['o', 'first', 'second', 'deep'])
    t.deepEqual(xattrsOf(join(root, d)), { 'trusted.overlay.opaque': '79' }, d)
  t.is(readFileSync(join(root, 'file'), 'utf8'), 'new')
  t.false(existsSync(join(root, '.wh..wh.plnk')))
  t.deepEqual(readdirSync(root).sort(), ['d', 'deep', 'file', 'first', 'o', 'second'])
  await tool.packLayer(root, join(dir, 'l.gz'))
  const plain = await apply(t, readFileSync(join(dir, 'l.gz')), { plain: true })
  t.true(existsSync(join(plain.root, 'd/.wh.gone')))
  t.true(existsSync(join(plain.root, 'o/.wh..wh..opq')))
  t.deepEqual(xattrsOf(join(plain.root, 'o')), {})
})

test('an entry replaces what an earlier entry of the same name made', async (t) => {
  const { root } = await apply(
    t,
    tarOf([
      { name: 'a/', type: 'directory' },
      { name: 'a/x', data: '1' },
      { name: 'a', data: 'file now' },
      { name: 'b', data: 'file' },
      { name: 'b/', type: 'directory', mode: 0o700 },
      { name: 'c', type: 'symlink', link: '/etc' },
      { name: 'c', data: 'not through the link' },
      { name: 'd/', type: 'directory', mode: 0o700 },
      { name: 'd/keep', data: 'k' },
      { name: 'd/', type: 'directory', mode: 0o755 },
    ]),
  )
  t.is(readFileSync(join(root, 'a'), 'utf8'), 'file now')
  t.true(statSync(join(root, 'b')).isDirectory())
  t.is(readFileSync(join(root, 'c'), 'utf8'), 'not through the link')
  t.is(lstatSync(join(root, 'd')).mode & 0o777, 0o755)
  t.true(existsSync(join(root, 'd/keep')))
})

test('a name that leads out is refused, an absolute one is contained', async (t) => {
  const e = await refused(t, [{ name: '../outside', data: 'evil' }])
  t.is(e.kind, 'invalid')
  t.regex(e.message, /leads out of the tree.*\.\.\/outside/)
  await refused(t, [{ name: 'a/../../outside', data: 'evil' }])
  const { root } = await apply(
    t,
    tarOf([
      { name: '/outside', data: 'inside' },
      { name: '/../x/../y', data: 'y' },
    ]),
  )
  t.deepEqual(readdirSync(root).sort(), ['outside', 'y'])
})

test('where it is asked for, a name that leads out begins at the root; a hard link does not', async (t) => {
  const { root, dir } = await apply(
    t,
    tarOf([
      { name: '../../up', data: 'x' },
      { name: 'a/../../../b/c', data: 'y' },
    ]),
    {
      contain: true,
    },
  )
  t.deepEqual([readFileSync(join(root, 'up'), 'utf8'), readFileSync(join(root, 'b/c'), 'utf8')], ['x', 'y'])
  t.deepEqual(readdirSync(dir), ['root'])
  const e = await refused(t, [{ name: 'l', type: 'hardlink', link: '../outside' }], { contain: true })
  t.regex(e.message, /outside of the tree/)
})

test('links inside the archive never lead writes out of the root', async (t) => {
  const dir = temporaryDirectory(t)
  mkdirSync(join(dir, 'victim'))
  const { root } = await apply(
    t,
    tarOf([
      { name: 'real/', type: 'directory' },
      { name: 'lib', type: 'symlink', link: 'real' },
      { name: 'lib/through', data: 'inside' },
      { name: 'up', type: 'symlink', link: '../../../../../..' },
      { name: 'up/at-root', data: 'contained' },
      { name: 'root', type: 'symlink', link: '/' },
      { name: 'root/also', data: 'contained' },
    ]),
  )
  t.is(readFileSync(join(root, 'real/through'), 'utf8'), 'inside')
  t.is(readFileSync(join(root, 'at-root'), 'utf8'), 'contained')
  t.is(readFileSync(join(root, 'also'), 'utf8'), 'contained')
  t.false(existsSync('/at-root'))
  t.false(existsSync('/also'))
  const host = await refused(t, [
    { name: 'evil', type: 'symlink', link: join(dir, 'victim') },
    { name: 'evil/file', data: 'x' },
  ])
  t.is(host.kind, 'invalid')
  t.deepEqual(readdirSync(join(dir, 'victim')), [])
})

test('hard links out of the root, to nothing, or to a directory are refused', async (t) => {
  await refused(t, [{ name: 'h', type: 'hardlink', link: '../outside' }])
  await refused(t, [{ name: 'h', type: 'hardlink', link: '/etc/passwd' }])
  await refused(t, [
    { name: 'e', type: 'symlink', link: '/' },
    { name: 'h', type: 'hardlink', link: 'e/etc/passwd' },
  ])
  await refused(t, [
    { name: 'd/', type: 'directory' },
    { name: 'h', type: 'hardlink', link: 'd' },
  ])
})

test('whiteouts of nothing and devices that would be whiteouts are refused', async (t) => {
  for (const name of ['.wh.', '.wh..', '.wh...', 'd/.wh..'])
    t.regex((await refused(t, [{ name }])).message, /names nothing/)
  t.regex((await refused(t, [{ name: 'w', type: 'char', device: [0, 0] }])).message, /whiteout/)
})

test('attributes of the overlay itself in a tar are left out', async (t) => {
  const { root, result } = await apply(
    t,
    tarOf([
      {
        name: 'd/',
        type: 'directory',
        xattrs: { 'trusted.overlay.redirect': Buffer.from('/etc'), 'trusted.overlay.opaque': Buffer.from('y') },
      },
    ]),
  )
  t.deepEqual(xattrsOf(join(root, 'd')), {})
  t.is(result.skippedAttributes, 2)
})

test('bombs are stopped: too many bytes, too many entries', async (t) => {
  const bomb = gzipSync(tarOf([{ name: 'zeros', data: Buffer.alloc(8 << 20) }]))
  const e = await t.throwsAsync(apply(t, bomb, { bytesMax: 1 << 20 }), { instanceOf: ShoalError })
  t.is(e!.fields.errno, 'EFBIG')
  t.regex(e!.message, /more than 1048576 bytes/)
  const devices: TarEntry[] = Array.from({ length: 50 }, (_, i) => ({ name: `n${i}`, type: 'char', device: [1, 3] }))
  t.regex((await refused(t, devices, { entriesMax: 20 })).message, /more than 20 entries/)
  // Padding behind the end of the archive counts as well.
  const endless = gzipSync(Buffer.concat([tarOf([]), Buffer.alloc(8 << 20)]))
  await t.throwsAsync(apply(t, endless, { bytesMax: 1 << 20 }), { message: /more than 1048576 bytes/ })
})

test('damaged streams are refused with the reason', async (t) => {
  const tar = tarOf([{ name: 'a', data: noise(100_000) }])
  const packed = gzipSync(tar)
  await t.throwsAsync(apply(t, packed.subarray(0, packed.length / 2)), {
    instanceOf: ShoalError,
    message: /truncated|cannot read/i,
  })
  await t.throwsAsync(apply(t, gzipSync(packed)), { message: /compressed twice/ })
  const flipped = Buffer.from(packed)
  flipped[packed.length >> 1]! ^= 0x40
  await t.throwsAsync(
    apply(t, flipped).then(({ result }) => {
      // Deflate may decode the flip into other bytes: then the digest tells.
      if (result.diffId !== sha(tar)) throw new ShoalError('invalid', 'x', 'cannot read: other digest')
    }),
    { instanceOf: ShoalError },
  )
  await t.throwsAsync(apply(t, tar.subarray(0, 5000)), { instanceOf: ShoalError, message: /[Tt]runcated/ })
  await t.throwsAsync(apply(t, noise(4096)), { instanceOf: ShoalError, message: /[Uu]nrecognized|damaged|cannot read/ })
})

test('thousands of directories that nobody describes are noted each', async (t) => {
  const count = 5000
  const entries = Array.from({ length: count }, (_, i): TarEntry => ({ name: `d${i}/f` }))
  entries.push({ name: 'd7/', type: 'directory' })
  const dir = temporaryDirectory(t)
  await apply(t, tarOf(entries), { implied: join(dir, 'implied') })
  const noted = new Set(readFileSync(join(dir, 'implied'), 'utf8').split('\0'))
  t.deepEqual([noted.size, noted.has('d8'), noted.has('d7'), noted.has('')], [count, true, false, true])
})

test('a deep tree is made and removed', async (t) => {
  const name = `${'d/'.repeat(1500)}leaf`
  const { root } = await apply(t, tarOf([{ name, data: 'x' }]))
  await tool.run('remove', ['--root', root])
  t.false(existsSync(root))
})

test('plain mode unpacks below a path of a root, through its links, and keeps kinds when asked', async (t) => {
  const dir = temporaryDirectory(t)
  const root = join(dir, 'root')
  mkdirSync(join(root, 'data/sub'), { recursive: true })
  const { symlinkSync } = await import('node:fs')
  symlinkSync('/data', join(root, 'link'))
  await tool.apply({ root, path: '/link', plain: true }).consume(
    streamOf(
      tarOf([
        { name: 'f', data: '1' },
        { name: '.wh.x', data: '2' },
      ]),
    ),
  )
  t.deepEqual(readdirSync(join(root, 'data')).sort(), ['.wh.x', 'f', 'sub'])
  await t.throwsAsync(
    tool
      .apply({ root, path: 'data', plain: true, noOverwriteDir: true })
      .consume(streamOf(tarOf([{ name: 'sub', data: 'file' }]))),
    { message: /cannot overwrite a directory with a non-directory/ },
  )
  const packed = tool.packTree(root, '/data/f', 'renamed')
  const chunks: Buffer[] = []
  packed.stdout.on('data', (c: Buffer) => chunks.push(c))
  t.is((await packed.done).entries, 1)
  t.is(Buffer.concat(chunks).subarray(0, 7).toString(), 'renamed')
})

test('a tree that is deeper than there are descriptors is counted, also while it is moved about', async (t) => {
  const dir = temporaryDirectory(t)
  const deep = join(dir, 'tree', ...Array<string>(500).fill('d'))
  mkdirSync(deep, { recursive: true })
  for (const place of [deep, join(dir, 'tree')])
    for (const name of ['a', 'b']) writeFileSync(join(place, name), '12345')
  const usage = (): string => {
    const limited = ['-c', 'ulimit -n 32 && exec "$@"', 'sh', LAYER_TOOL, 'usage', join(dir, 'tree'), join(dir, 'none')]
    return spawnSync('sh', limited, { encoding: 'utf8' }).stderr
  }
  t.is(usage(), '{"bytes":[20,null]}\n')
  const mover = spawn('sh', ['-c', `cd ${dir}/tree/d/d/d && while :; do mv d ../../x; mv ../../x d; done`])
  for (let n = 0; n < 5; n++) t.regex(usage(), /^\{"bytes":\[(10|20),null\]\}\n$/)
  mover.kill('SIGKILL')
})

test('a tool that is not there is reported as such', async (t) => {
  const e = await t.throwsAsync(new LayerTool('/nonexistent/shoal-layer').run('sync', ['--root', '/tmp']), {
    instanceOf: ShoalError,
  })
  t.regex(e!.message, /is the native part built/)
  t.true(existsSync(LAYER_TOOL))
})

test('a copy of a tree keeps what it has, or gives it to one owner; contents alone make its digest', async (t) => {
  const { root, dir } = await apply(t, tarOf(RICH))
  const [kept, given] = [join(dir, 'kept'), join(dir, 'given')]
  for (const d of [kept, given]) mkdirSync(d)
  await tool.copyTree({ root, path: '', name: '' }, { root: kept, path: '' })
  await tool.copyTree({ root, path: 'dir', name: 'renamed' }, { root: given, path: '', owner: { uid: 5, gid: 6 } })
  const file = lstatSync(join(kept, 'dir/file'))
  t.deepEqual([file.mode & 0o7777, file.uid, file.gid], [0o4755, 1000, 1001])
  const owned = lstatSync(join(given, 'renamed/file'))
  t.deepEqual([owned.mode & 0o7777, owned.uid, owned.gid], [0o4755, 5, 6])
  t.deepEqual(
    [lstatSync(join(given, 'renamed')).uid, readFileSync(join(given, 'renamed/hard'), 'utf8')],
    [5, 'content'],
  )

  const digest = await tool.digestTree(root, 'dir', '')
  utimesSync(join(root, 'dir/file'), 1, 1)
  t.is(await tool.digestTree(root, 'dir', ''), digest, 'times do not count')
  t.not(await tool.digestTree(root, 'dir', 'named'), digest)
  chmodSync(join(root, 'dir/file'), 0o600)
  t.not(await tool.digestTree(root, 'dir', ''), digest, 'modes do')
  await t.throwsAsync(tool.copyTree({ root, path: 'none', name: 'x' }, { root: given, path: '' }), {
    message: /cannot open/,
  })
  await t.throwsAsync(tool.copyTree({ root, path: 'dir', name: '../x' }, { root: given, path: '' }), {
    message: /leads out of the tree/,
  })
  t.false(existsSync(join(dir, 'x')))
})

test('a tar is told from other files, compressed or not', async (t) => {
  const dir = temporaryDirectory(t)
  const files: Record<string, [Buffer, boolean]> = {
    plain: [tarOf([{ name: 'a', data: 'x' }]), true],
    packed: [gzipSync(tarOf([{ name: 'a', data: 'x' }])), true],
    twice: [gzipSync(gzipSync(tarOf([{ name: 'a', data: 'x' }]))), false],
    text: [Buffer.from('text'), false],
    'text.gz': [gzipSync('text'), false],
    empty: [Buffer.alloc(0), false],
    'no entries': [Buffer.alloc(1024), false],
  }
  for (const [name, [content, isTar]] of Object.entries(files)) {
    writeFileSync(join(dir, name), content)
    t.is(await tool.isTar(dir, name), isTar, name)
  }
})

test('a tar may end with its last entry, not in the middle of its end mark, where somebody sent it', async (t) => {
  const { root } = await apply(t, tarOf([{ name: 'a', data: 'x' }]).subarray(0, 513), { plain: true })
  t.is(readFileSync(join(root, 'a'), 'utf8'), 'x')
  const whole = tarOf([{ name: 'a', data: 'x' }])
  await apply(t, whole, { plain: true })
  const long = tarOf([{ name: 'a', data: 'x'.repeat(1000) }])
  for (const cut of [
    long.subarray(0, 512 + 900),
    long.subarray(0, 300),
    tarOf([{ name: 'd', type: 'directory' }]).subarray(0, 500),
  ])
    await t.throwsAsync(tool.apply({ root: temporaryDirectory(t), plain: true }).consume(streamOf(cut)), {
      message: /unexpected end|Truncated|Unrecognized/,
    })
  const cut = whole.subarray(0, whole.length - 1)
  const dir = temporaryDirectory(t)
  await t.throwsAsync(tool.apply({ root: dir, plain: true }).consume(streamOf(cut)), { message: /unexpected end/ })
  await t.throwsAsync(tool.apply({ root: dir, plain: true }).consume(streamOf(gzipSync(cut))), {
    message: /unexpected end/,
  })
})

test('a layer on a merged tree removes what it hides', async (t) => {
  const { root: merged, dir } = await apply(
    t,
    tarOf([
      { name: 'gone', data: 'x' },
      { name: 'tree/deep/file', data: 'x' },
      { name: 'opaque/old', data: 'x' },
      { name: 'kept', data: 'below' },
    ]),
  )
  const layer = join(dir, 'layer')
  mkdirSync(layer)
  await tool
    .apply({ root: layer })
    .consume(
      streamOf(
        tarOf([
          { name: '.wh.gone' },
          { name: '.wh.tree' },
          { name: 'opaque/', type: 'directory' },
          { name: 'opaque/.wh..wh..opq' },
          { name: 'opaque/-new', data: 'new' },
          { name: '.wh.none' },
          { name: 'kept', data: 'above' },
        ]),
      ),
    )
  await tool.flattenLayer(layer, merged)
  t.deepEqual(readdirSync(merged).sort(), ['kept', 'opaque'])
  t.deepEqual(readdirSync(join(merged, 'opaque')), ['-new'])
  t.is(readFileSync(join(merged, 'kept'), 'utf8'), 'above')
})
