import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'

export const BUSYBOX = '/bin/busybox'

const PAGE =
  '<!doctype html>\n<title>Shoal</title>\n<h1>It swims</h1>\n<p>Served by busybox in a container of a Shoal cluster.</p>\n'
/** Which task answered: its host name and address. */
const WHO = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nhostname\n'

/** A root file system of busybox with all its applets, a web page, and a script that tells who answers. */
export function webRootfs(): Readable {
  const tar = pack()
  const dir = (name: string, mode = 0o755): void => {
    tar.entry({ name: `${name}/`, type: 'directory', mode })
  }
  const file = (name: string, data: string | Buffer, mode: number): void => {
    tar.entry({ name, mode }, data)
  }
  for (const d of ['bin', 'dev', 'etc', 'proc', 'sys', 'root', 'var', 'var/www', 'var/www/cgi-bin']) dir(d)
  dir('tmp', 0o1777)
  file('bin/busybox', readFileSync(BUSYBOX), 0o755)
  for (const applet of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).split('\n')) {
    if (applet && applet !== 'busybox') tar.entry({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox' })
  }
  file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n', 0o644)
  file('etc/group', 'root:x:0:\n', 0o644)
  file('var/www/index.html', PAGE, 0o644)
  file('var/www/cgi-bin/who', WHO, 0o755)
  tar.finalize()
  return Readable.from(tar)
}

export const WEB_CHANGES = ['CMD ["httpd", "-f", "-p", "80", "-h", "/var/www"]', 'ENV PATH=/bin', 'EXPOSE 80']
