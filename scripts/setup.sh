#!/bin/sh
# Everything Shoal needs on a fresh Debian 12 (or Ubuntu) host with Node 20.19 or newer: system packages, npm packages,
# native and TypeScript build. Does nothing when that is done already. --quiet prints only what takes time.
set -eu
cd "$(dirname "$0")/.."

node_version=$(node -p 'process.versions.node' 2>/dev/null || echo none)
case "$node_version" in
none) echo "Shoal needs Node 20.19 or newer, and there is no node on the PATH" >&2; exit 1 ;;
esac
if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; then
  echo "Shoal needs Node 20.19 or newer; this is Node $node_version ($(command -v node))" >&2
  exit 1
fi

say() { printf '%s\n' "$*" >&2; }
stamp=build/.setup

# Program or file that shows a package is there : package
wanted='/usr/bin/g++:g++ /usr/bin/make:make /usr/bin/musl-gcc:musl-tools /usr/include/seccomp.h:libseccomp-dev /usr/include/archive.h:libarchive-dev
/usr/include/nftables/libnftables.h:libnftables-dev /usr/include/openssl/evp.h:libssl-dev /usr/include/zlib.h:zlib1g-dev /sbin/ip:iproute2 /usr/sbin/nft:nftables /bin/busybox:busybox-static
/usr/bin/docker-registry:docker-registry /usr/bin/nsenter:util-linux /bin/ps:procps /usr/bin/curl:curl'
missing=''
for pair in $wanted; do
  [ -e "${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then say "Shoal needs root to install:$missing"; exit 1; fi
  if ! command -v apt-get >/dev/null; then say "Shoal installs its packages with apt-get, which is not here; install by hand:$missing"; exit 1; fi
  say "installing system packages:$missing"
  log=$(mktemp)
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 || { tail -20 "$log" >&2; say "apt-get failed; see $log"; exit 1; }
  rm -f "$log"
fi

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  if [ -L node_modules ]; then say "node_modules is a link: npm ci would empty what it points to; install there first"; exit 1; fi
  say "installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi

if [ ! -e "$stamp" ] || [ -n "$(find src test native proto scripts bench package-lock.json tsconfig.base.json tsconfig.json -newer "$stamp" -type f -print 2>/dev/null | head -1)" ]; then
  say "building"
  mkdir -p build
  touch "$stamp.new"
  node scripts/build.mjs >&2
  mv "$stamp.new" "$stamp"
fi
[ "${1-}" = --quiet ] || say "Shoal is set up: npm start, npm test, bin/shoald, bin/shoal"
