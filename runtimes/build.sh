#!/bin/sh
# Builds the two components that the wasm sandbox runs, build/python.wasm and build/javascript.wasm, and build/typescript.mjs, the
# program that makes JavaScript of TypeScript in one of them.
#
#     runtimes/build.sh [python] [javascript] [typescript]      all by default
#
# Needs python3 (3.9 or later, with venv) and node with npm. Everything else is pinned by wasm-python/requirements.txt and
# the package-lock.json of the others and comes from PyPI and npm at the first run. Does nothing when nothing has changed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build="$here/build"
mkdir -p "$build"

# A digest of everything that the component in folder $1 is made from.
inputs() {
    (cd "$here" && find "$1" -type f ! -path '*/node_modules/*' ! -path '*/__pycache__/*' -print | LC_ALL=C sort |
        while read -r file; do echo "$file $(cksum < "$file")"; done | cksum)
}

fresh() { [ -f "$build/$1.wasm" ] && [ "$(cat "$build/$1.inputs" 2> /dev/null)" = "$(inputs "wasm-$1")" ]; }

# The component appears whole or not at all.
finish() {
    mv "$build/$1.wasm.tmp" "$build/$1.wasm"
    inputs "wasm-$1" > "$build/$1.inputs"
    echo "built runtimes/build/$1.wasm"
}

build_python() {
    venv="$build/python-tools"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/wasm-python/requirements.txt"
    # An empty environment: otherwise the packages of whoever builds would get into the component.
    [ -d "$build/python-empty" ] || python3 -m venv --without-pip "$build/python-empty"
    (cd "$here/wasm-python" && VIRTUAL_ENV="$build/python-empty" "$venv/bin/componentize-py" --quiet \
        --wit-path world.wit --world python componentize runner --output "$build/python.wasm.tmp")
    finish python
}

build_javascript() {
    # Not `npm ci`: it refuses the lock, because componentize-qjs names builds for platforms that were never published.
    # `--no-save` takes the locked versions and checks their digests all the same.
    (cd "$here/wasm-javascript" && npm install --no-save --loglevel=error --no-audit --no-fund > /dev/null &&
        node build.mjs "$build/javascript.wasm.tmp" "$build/javascript.packages")
    finish javascript
}

build_typescript() {
    (cd "$here/typescript" && npm ci --loglevel=error --no-audit --no-fund > /dev/null &&
        node build.mjs "$build/typescript.mjs.tmp" "$build/typescript.packages")
    mv "$build/typescript.mjs.tmp" "$build/typescript.mjs"
    inputs typescript > "$build/typescript.inputs"
    echo "built runtimes/build/typescript.mjs"
}

typescript_is_fresh() {
    [ -f "$build/typescript.mjs" ] && [ -f "$build/typescript.packages" ] && [ "$(cat "$build/typescript.inputs" 2> /dev/null)" = "$(inputs typescript)" ]
}

[ $# -gt 0 ] || set -- python javascript typescript
for part in "$@"; do
    case "$part" in
        python) fresh python || build_python ;;
        javascript) { fresh javascript && [ -f "$build/javascript.packages" ]; } || build_javascript ;;
        typescript) typescript_is_fresh || build_typescript ;;
        *) echo "usage: runtimes/build.sh [python] [javascript] [typescript]" >&2; exit 2 ;;
    esac
done
