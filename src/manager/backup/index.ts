export { type Backup, type BackupManifest, readBackup, writeBackup } from './format.js'
export { type RestoredManager, type RestoreOptions, restoreManager } from './restore.js'
