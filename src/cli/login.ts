import { type Cli, type Command, Exit, readLine } from './command.js'
import { changeConfig, configDir } from './config-file.js'
import { credentials, HUB } from './registry-auth.js'

/** Names of Docker Hub that all mean its index. */
const registryName = (server: string | undefined): string =>
  !server || ['docker.io', 'index.docker.io', 'registry-1.docker.io'].includes(server)
    ? HUB
    : server.replace(/^https?:\/\//, '').replace(/\/$/, '')

/** Reads a line from the terminal without showing it. */
async function readHidden(cli: Cli, prompt: string): Promise<string> {
  cli.err(prompt)
  process.stdin.setRawMode(true)
  let text = ''
  try {
    for await (const b of process.stdin) {
      for (const c of String(b)) {
        if (c === '\r' || c === '\n') return text
        if (c === '\u0003') throw new Exit(130, '')
        text = c === '\u007f' || c === '\b' ? text.slice(0, -1) : text + c
      }
    }
    return text
  } finally {
    process.stdin.setRawMode(false)
    process.stdin.pause()
    cli.err('\n')
  }
}

interface LoginFlags {
  username?: string
  password?: string
  passwordStdin?: boolean
}

/** login, logout: who one is, is kept in the configuration file, under `auths`. */
export function registerLogin(parent: Command, cli: Cli): void {
  parent
    .command('login')
    .description('Authenticate to a registry')
    .argument('[server]')
    .option('-p, --password <password>', 'password or Personal Access Token (PAT)')
    .option('--password-stdin', 'take the password from stdin')
    .option('-u, --username <username>', 'username')
    .action(async (server: string | undefined, f: LoginFlags) => {
      const registry = registryName(server)
      if (f.password !== undefined && f.passwordStdin)
        throw new Exit(1, '--password and --password-stdin are mutually exclusive')
      if (f.passwordStdin && !f.username) throw new Exit(1, 'the --password-stdin option requires --username to be set')
      if (f.password !== undefined)
        cli.err('WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n')
      const known = credentials(registry)
      let { username, password } = f
      if (f.passwordStdin) {
        password = ''
        for await (const b of process.stdin) password += String(b)
        password = password.replace(/\r?\n$/, '')
      } else if (known && username === undefined && password === undefined) {
        cli.out('Authenticating with existing credentials...\n')
        username = known.username
        password = known.password
      }
      if (username === undefined || password === undefined) {
        if (process.stdin.isTTY !== true)
          throw new Exit(1, 'Error: Cannot perform an interactive login from a non TTY device')
        if (username === undefined) {
          cli.err('Username: ')
          username = (await readLine()).trim()
        }
        password = await readHidden(cli, 'Password: ')
      }
      if (!username) throw new Exit(1, 'username is required')
      if (!password) throw new Exit(1, 'password is required')
      const done = await (await cli.api()).post<{ Status: string; IdentityToken?: string }>('/auth', {
        body: { username, password, serveraddress: registry },
      })
      changeConfig((c) => {
        c.auths = {
          ...c.auths,
          [registry]: {
            auth: Buffer.from(`${username}:${done.IdentityToken ? '' : password}`).toString('base64'),
            ...(done.IdentityToken ? { identitytoken: done.IdentityToken } : {}),
          },
        }
      })
      cli.err(
        `WARNING! Your password will be stored unencrypted in ${configDir()}/config.json.\nConfigure a credential helper to remove this warning.\n\n`,
      )
      cli.out(`${done.Status}\n`)
    })
  parent
    .command('logout')
    .description('Log out from a registry')
    .argument('[server]')
    .action((server: string | undefined) => {
      const registry = registryName(server)
      if (!credentials(registry)) {
        cli.out(`Not logged in to ${registry}\n`)
        return
      }
      cli.out(`Removing login credentials for ${registry}\n`)
      changeConfig((c) => {
        const { [registry]: _gone, ...rest } = c.auths ?? {}
        c.auths = rest
      })
    })
}
