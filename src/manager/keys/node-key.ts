import { createPrivateKey } from 'node:crypto'
import { readDerivedKey } from '../../raft/index.js'

/** What the key that seals a node's private key is derived for. */
export const NODE_KEY = 'shoal node key'

const SEALED = '-----BEGIN ENCRYPTED PRIVATE KEY-----'
const passphrase = (secret: Uint8Array): string => Buffer.from(secret).toString('hex')

/** A node's private key (PKCS #8 PEM) as it lies on the disk of a manager that is locked. */
export const sealNodeKey = (pem: string, secret: Uint8Array): string =>
  createPrivateKey(pem)
    .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: passphrase(secret) })
    .toString()

/**
 * The private key in clear, and what it was sealed with (null: it was not). `raftDir` holds the data key that the seal comes
 * from. Throws unauthorized `wrongUnlockKey` when that is locked and `unlockKey` does not open it.
 */
export async function openNodeKey(
  pem: string,
  raftDir: string,
  unlockKey: Uint8Array | null,
): Promise<{ readonly key: string; readonly secret: Uint8Array | null }> {
  if (!pem.startsWith(SEALED)) return { key: pem, secret: null }
  const secret = await readDerivedKey(raftDir, unlockKey, NODE_KEY)
  const key = createPrivateKey({ key: pem, passphrase: passphrase(secret) })
  return { key: key.export({ type: 'pkcs8', format: 'pem' }).toString(), secret }
}
