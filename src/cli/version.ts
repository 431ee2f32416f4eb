/** Of this command; the engine tells its own. */
export const CLIENT_VERSION = '0.1.0'
