import { type Cli, type Command, filters, type ListFlags, listFlags, printList } from '../command.js'
import { ago, goTime, humanSize } from '../format/units.js'
import { splitTag } from './reference.js'

export interface Summary {
  Id: string
  RepoTags: string[] | null
  RepoDigests: string[] | null
  Created: number
  Size: number
}

const COLUMNS = {
  Repository: 'REPOSITORY',
  Tag: 'TAG',
  Digest: 'DIGEST',
  ID: 'IMAGE ID',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  Size: 'SIZE',
  VirtualSize: 'SIZE',
  Containers: 'CONTAINERS',
  SharedSize: 'SHARED SIZE',
  UniqueSize: 'UNIQUE SIZE',
}

export function registerImageLs(parent: Command, cli: Cli, name: string, aliases: readonly string[]): void {
  listFlags(parent.command(name).aliases(aliases).description('List images'))
    .argument('[reference]')
    .takes('[REPOSITORY[:TAG]]')
    .option('-a, --all', 'show all images (default hides intermediate images)')
    .option('--digests', 'show digests')
    .option('--no-trunc', "don't truncate output")
    .action(
      async (reference: string | undefined, f: ListFlags & { all?: boolean; digests?: boolean; trunc: boolean }) => {
        const api = await cli.api()
        const wanted = { ...filters(f.filter), ...(reference ? { reference: [reference] } : {}) }
        const images = await api.get<Summary[]>('/images/json', {
          all: f.all ?? false,
          filters: Object.keys(wanted).length > 0 ? wanted : undefined,
        })
        const rows = [...images]
          .sort((a, b) => b.Created - a.Created)
          .flatMap((i) => {
            // docker tells it only when it was asked for, in JSON as well.
            const showsDigest = f.digests || f.format?.includes('{{.Digest}}')
            const digests = new Map(
              (i.RepoDigests ?? []).map((d) => [d.slice(0, d.indexOf('@')), d.slice(d.indexOf('@') + 1)]),
            )
            const tags =
              i.RepoTags && i.RepoTags.length > 0
                ? i.RepoTags.map(splitTag)
                : [...digests.keys()].map((repository) => ({ repository, tag: '<none>' }))
            return (tags.length > 0 ? tags : [{ repository: '<none>', tag: '<none>' }]).map((t) => ({
              Repository: t.repository,
              Tag: t.tag,
              Digest: (showsDigest && digests.get(t.repository)) || '<none>',
              ID: f.trunc ? i.Id.replace('sha256:', '').slice(0, 12) : i.Id,
              CreatedSince: i.Created > 0 ? ago(Date.now() - i.Created * 1000) : 'N/A',
              CreatedAt: goTime(i.Created * 1000),
              Size: humanSize(i.Size, 3),
              VirtualSize: humanSize(i.Size),
              Containers: 'N/A',
              SharedSize: 'N/A',
              UniqueSize: 'N/A',
            }))
          })
        printList(
          cli,
          rows,
          {
            columns: COLUMNS,
            shown: ['Repository', 'Tag', ...(f.digests ? ['Digest'] : []), 'ID', 'CreatedSince', 'Size'],
            id: 'ID',
          },
          f,
        )
      },
    )
}

export const registerImagesAlias = (parent: Command, cli: Cli): void => registerImageLs(parent, cli, 'images', [])
