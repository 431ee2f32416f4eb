import { invalid } from '../../common/index.js'

export interface ResolvedUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
  readonly home: string
}

interface PasswdEntry {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

interface GroupEntry {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

const lines = (text: string): string[][] =>
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'))

function parsePasswd(text: string): PasswdEntry[] {
  return lines(text)
    .map((f) => ({ name: f[0] ?? '', uid: Number(f[2]), gid: Number(f[3]), home: f[5] ?? '' }))
    .filter((e) => Number.isInteger(e.uid) && Number.isInteger(e.gid))
}

function parseGroup(text: string): GroupEntry[] {
  return lines(text)
    .map((f) => ({ name: f[0] ?? '', gid: Number(f[2]), members: (f[3] ?? '').split(',').filter(Boolean) }))
    .filter((e) => Number.isInteger(e.gid))
}

const MAX_ID = 0x7fff_ffff
const asNumber = (text: string): number | null => (/^-?\d+$/.test(text) ? Number(text) : null)
function inRange(id: number): number {
  if (id < 0 || id > MAX_ID) throw invalid('idRange', `uids and gids must be in range 0-${MAX_ID}`, { id })
  return id
}

/**
 * "", "user", "uid", "user:group", "uid:gid" against the container's own /etc/passwd and /etc/group (null = absent).
 * As docker: a number need not be listed; a name must be; groups that list the user are added unless a group was named.
 */
export function resolveUser(options: {
  readonly user: string
  readonly groupAdd: readonly string[]
  readonly passwd: string | null
  readonly group: string | null
}): ResolvedUser {
  const [wantedUser = '', wantedGroup] = options.user.split(':')
  const users = parsePasswd(options.passwd ?? '')
  const groups = parseGroup(options.group ?? '')

  const uid = wantedUser === '' ? 0 : asNumber(wantedUser)
  const entry = users.find((e) => e.name === wantedUser) ?? users.find((e) => e.uid === uid)
  if (!entry && uid === null)
    throw invalid('unknownUser', `unable to find user ${wantedUser}: no matching entries in passwd file`, {
      user: wantedUser,
    })

  const ownUid = entry?.uid ?? inRange(uid ?? 0)
  let gid = entry?.gid ?? 0
  const additional: number[] = []
  if (wantedGroup !== undefined && wantedGroup !== '') gid = findGroup(groups, wantedGroup)
  else if (entry) for (const g of groups) if (g.members.includes(entry.name) && g.gid !== gid) additional.push(g.gid)
  for (const name of options.groupAdd) additional.push(findGroup(groups, name))

  return {
    uid: ownUid,
    gid,
    additionalGids: [...new Set([gid, ...additional])],
    home: entry?.home || '/',
  }
}

function findGroup(groups: readonly GroupEntry[], wanted: string): number {
  const gid = groups.find((g) => g.name === wanted)?.gid ?? asNumber(wanted)
  if (gid === null)
    throw invalid('unknownGroup', `unable to find group ${wanted}: no matching entries in group file`, {
      group: wanted,
    })
  return inRange(gid)
}
