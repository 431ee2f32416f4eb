// A tree with all that a file system can hold, on every way that an engine moves trees without building.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { docker, type LabHost, lab, ok, webImage } from './support.js'

const RAW = Buffer.from([0x72, 0xe9, 0x77, 0xff]) // no UTF-8
const LONG = 'n'.repeat(200)

/** The tree, made by the programs that users have; `setfattr` and `setcap` write what the kernel keeps as attributes. */
function makeTree(root: string): void {
  const sh = (script: string): void => {
    execFileSync('sh', ['-ec', script], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  }
  sh(`
    mkdir -p dir/empty 'name with blank' deep/${LONG}/${LONG}
    echo one > file; ln file hard; ln -s file soft; ln -s /nowhere/at/all dangling
    echo x > deep/${LONG}/${LONG}/leaf
    chmod 4751 file; chmod 1777 dir; chown 12:34 dir
    echo cap > capable; printf '' > none; echo é > 'ünï'
    mkfifo pipe; mknod null c 1 3; mknod disk b 7 9
    truncate -s 8M sparse; printf end | dd of=sparse bs=1 seek=4194304 conv=notrunc 2>/dev/null
    touch -d '2001-02-03 04:05:06.123456789 UTC' none; touch -h -d '1999-01-01 UTC' soft
    touch -d '2002-02-02 UTC' dir
  `)
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), RAW]), 'raw')
  execFileSync('python3', [
    '-c',
    `import os,sys,struct
root=sys.argv[1]
os.setxattr(root+'/none','user.colour',b'blue\\0green')
# A version 2 capability of the file: cap_net_raw, effective (capabilities(7)).
os.setxattr(root+'/capable','security.capability',struct.pack('<5I',0x02000001,1<<13,0,0,0))`,
    root,
  ])
}

/** Kind, mode, owner, size, device, links, blocks, times and attributes of everything, by name. */
const LOOK = `import os,sys,stat,hashlib
root=os.fsencode(sys.argv[1])
ino={}
def see(path):
    st=os.lstat(path); rel=os.path.relpath(path,root)
    data=b''
    if stat.S_ISREG(st.st_mode): data=hashlib.sha256(open(path,'rb').read()).hexdigest().encode()
    if stat.S_ISLNK(st.st_mode): data=os.readlink(path)
    first=ino.setdefault((st.st_dev,st.st_ino),rel)
    holes=stat.S_ISREG(st.st_mode) and st.st_blocks*512 < st.st_size
    attrs=sorted((k,os.getxattr(path,k,follow_symlinks=False)) for k in os.listxattr(path,follow_symlinks=False) if k.startswith(('user.','security.cap')))
    # Whole seconds: the tars that are made here have no more, as dockerd's.
    time=int(st.st_mtime) if rel!=b'.' else 0
    print(rel,oct(st.st_mode),st.st_uid,st.st_gid,st.st_size if stat.S_ISREG(st.st_mode) else 0,st.st_rdev,first,holes,time,data,attrs)
see(root)
for d,ds,fs in os.walk(root):
    ds.sort()
    for n in sorted(ds+fs): see(os.path.join(d,n))
`
const look = (root: string): string[] =>
  execFileSync('python3', ['-c', LOOK, root], { encoding: 'utf8', maxBuffer: 1 << 26 })
    .trim()
    .split('\n')
    .sort()

test.serial(
  'a tree of every kind of entry comes out of cp, commit, push and pull, save and load, export and import as it went in',
  async (t) => {
    t.timeout(240_000)
    const dir = mkdtempSync(join(tmpdir(), 'shoal-trees-'))
    t.teardown(() => rmSync(dir, { recursive: true, force: true }))
    const l = await lab('itr', '10.92.11', 1, 1)
    try {
      const [m1, w1] = l.plan.hosts as [LabHost, LabHost]
      const web = await webImage(l, m1)
      const source = join(dir, 'source')
      execFileSync('mkdir', [source])
      makeTree(source)
      const wanted = look(source)
      t.true(wanted.length > 18)
      const tar = execFileSync(
        'tar',
        ['--numeric-owner', '--xattrs', '--xattrs-include=*', '--sparse', '--format=posix', '-C', source, '-c', '.'],
        { maxBuffer: 1 << 26 },
      )

      /** What a container has below /tree, unpacked by tar(1) on this machine. */
      const treeOf = async (h: LabHost, container: string, name: string): Promise<string[]> => {
        const out = join(dir, name)
        execFileSync('mkdir', [out])
        const file = join(dir, `${name}.tar`)
        execFileSync(
          'sh',
          [
            '-c',
            'docker cp "$1":/tree/. - > "$2" && tar --numeric-owner --xattrs --xattrs-include="*" -xpf "$2" -C "$3"',
            'sh',
            container,
            file,
            out,
          ],
          { env: { ...process.env, DOCKER_HOST: `unix://${h.socket}` } },
        )
        return look(out)
      }
      const same = (name: string, got: readonly string[]): void => {
        t.deepEqual(
          got.filter((x) => !wanted.includes(x)),
          [],
          `${name}: not as it was`,
        )
        t.deepEqual(
          wanted.filter((x) => !got.includes(x)),
          [],
          `${name}: missing`,
        )
      }

      await ok(m1, 'run', '-d', '--name', 'first', web, 'sleep', '1000')
      await ok(m1, 'exec', 'first', 'mkdir', '/tree')
      const put = await docker(m1, ['cp', '-a', '-', 'first:/tree'], { input: tar })
      t.is(put.status, 0, put.stderr)
      same('cp into a running container and out of it', await treeOf(m1, 'first', 'cp'))

      // A second layer takes some of it away: whiteouts and an opaque directory.
      await ok(m1, 'commit', 'first', `${l.plan.registry}/tree:1`)
      await ok(
        m1,
        'run',
        '--name',
        'second',
        `${l.plan.registry}/tree:1`,
        'sh',
        '-c',
        'rm -r /tree/hard /tree/deep; mkdir /tree/deep; echo new > /tree/deep/only',
      )
      await ok(m1, 'commit', 'second', `${l.plan.registry}/tree:2`)
      for (const tag of ['1', '2']) await ok(m1, 'push', '-q', `${l.plan.registry}/tree:${tag}`)
      await ok(w1, 'pull', '-q', `${l.plan.registry}/tree:1`)
      await ok(w1, 'create', '--name', 'pulled', `${l.plan.registry}/tree:1`)
      same('commit, push, pull', await treeOf(w1, 'pulled', 'pulled'))
      await ok(w1, 'pull', '-q', `${l.plan.registry}/tree:2`)
      const left = await ok(
        w1,
        'run',
        '--rm',
        `${l.plan.registry}/tree:2`,
        'sh',
        '-c',
        'ls -A /tree/deep; ls -d /tree/hard 2>&1 || true',
      )
      t.deepEqual(left.split('\n'), ['only', 'ls: /tree/hard: No such file or directory'])

      const id = await ok(w1, 'image', 'inspect', '-f', '{{.Id}}', `${l.plan.registry}/tree:1`)
      await ok(w1, 'save', '-o', join(dir, 'saved'), `${l.plan.registry}/tree:1`)
      await ok(w1, 'rm', 'pulled')
      await ok(w1, 'rmi', '-f', `${l.plan.registry}/tree:1`, `${l.plan.registry}/tree:2`)
      await ok(w1, 'load', '-q', '-i', join(dir, 'saved'))
      t.is(await ok(w1, 'image', 'inspect', '-f', '{{.Id}}', `${l.plan.registry}/tree:1`), id)
      await ok(w1, 'create', '--name', 'loaded', `${l.plan.registry}/tree:1`)
      same('save, load', await treeOf(w1, 'loaded', 'loaded'))

      await ok(m1, 'export', '-o', join(dir, 'exported'), 'first')
      await ok(m1, 'import', '-c', 'CMD ["true"]', join(dir, 'exported'), 'imported:1')
      await ok(m1, 'create', '--name', 'imported', 'imported:1')
      same('export, import', await treeOf(m1, 'imported', 'imported'))
      t.true(readdirSync(dir).length > 5)
    } finally {
      await l.down()
    }
  },
)
