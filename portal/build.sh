#!/bin/sh
# Builds the portal into build/, from where the program's build takes it.
#
# Needs node (20.19 or later) with npm; the rest is pinned by package-lock.json and comes from npm at the first run. Does nothing when
# nothing has changed. With cargo and rustc's target wasm32-unknown-unknown, pages check proofs themselves.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
mkdir -p build

# The checker of proofs: WebAssembly, for which rustc needs a target that not every machine has. Without it the portal is built all the
# same, and its pages say how to get it. In a target directory of its own, so that no other build waits for it or is disturbed.
checker() {
    [ -f build/checker.wasm ] || : > build/checker.wasm
    if ! command -v cargo > /dev/null 2>&1; then return; fi
    if command -v rustup > /dev/null 2>&1 && ! rustup target list --installed | grep -qx wasm32-unknown-unknown; then
        rustup target add wasm32-unknown-unknown > /dev/null 2>&1 || :
    fi
    (cd .. && CARGO_TARGET_DIR=portal/build/checker cargo rustc --quiet --locked -p piecework-proof-web --lib --crate-type cdylib \
        --target wasm32-unknown-unknown --profile web) > build/checker.log 2>&1 || {
        echo "the portal is built without the checker of proofs: run \`rustup target add wasm32-unknown-unknown\`, then portal/build.sh" >&2
        : > build/checker.wasm
        return
    }
    made=build/checker/wasm32-unknown-unknown/web/piecework_proof_web.wasm
    cmp -s "$made" build/checker.wasm || cp "$made" build/checker.wasm
}

# A digest of everything that the bundle is made from.
inputs() {
    find ../runtimes/shipped.mjs build/checker.wasm src tools index.html package.json package-lock.json svelte.config.js tsconfig.json vite.config.mjs ../docs/openapi.json \
        -type f ! -name openapi.d.ts -print | LC_ALL=C sort | while read -r file; do echo "$file $(cksum < "$file")"; done | cksum
}

# What npm has installed is of this lock.
installed() { [ -d node_modules ] && [ "$(cat build/lock 2> /dev/null)" = "$(cksum < package-lock.json)" ]; }

checker
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
