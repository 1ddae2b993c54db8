#!/bin/sh
# Builds the portal into build/, from where the program's build takes it.
#
# Needs node (20.19 or later) with npm; the rest is pinned by package-lock.json and comes from npm at the first run. Does nothing when
# nothing has changed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
mkdir -p build

# A digest of everything that the bundle is made from.
inputs() {
    find ../runtimes/shipped.mjs src tools index.html package.json package-lock.json svelte.config.js tsconfig.json vite.config.mjs ../docs/openapi.json \
        -type f ! -name openapi.d.ts -print | LC_ALL=C sort | while read -r file; do echo "$file $(cksum < "$file")"; done | cksum
}

# What npm has installed is of this lock.
installed() { [ -d node_modules ] && [ "$(cat build/lock 2> /dev/null)" = "$(cksum < package-lock.json)" ]; }

if [ -f build/files.txt ] && [ "$(cat build/inputs 2> /dev/null)" = "$(inputs)" ]; then exit 0; fi
if ! installed; then
    # Not `npm ci`: it refuses the lock, because Vite's bundler names builds for platforms that were never published. `--no-save` takes
    # the locked versions and checks their digests all the same.
    npm install --no-save --loglevel=error --no-audit --no-fund > /dev/null
    cksum < package-lock.json > build/lock
fi
npm run --silent types > /dev/null
npm run --silent check
npm run --silent build > build/log 2>&1 || { cat build/log >&2; exit 1; }
inputs > build/inputs
echo "built portal/build"
