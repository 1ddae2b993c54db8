# Sourced by ./run, ./test, ./bench and .ci/run: steps with times, and the tools that they need.
# Leaves the caller in the root of the checkout.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' DIM='' RED='' PLAIN=''; fi
BEGAN=$SECONDS
STEP_TIMES=()
TARGET=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf '%s\n' "$*"; }
note() { printf '%s%s%s\n' "$DIM" "$*" "$PLAIN"; }
fail() {
  printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
  exit 1
}

# step TITLE COMMAND...: runs it and says how long it took. A command that fails anywhere in it ends the script.
step() {
  local began=$SECONDS
  STEP=$1
  shift
  printf '\n%s== %s%s\n' "$BOLD" "$STEP" "$PLAIN"
  # Not `"$@" || ...`: that would switch `set -e` off inside the functions that are called.
  "$@"
  local took=$((SECONDS - began))
  STEP_TIMES+=("$(printf '%5d s  %s' "$took" "$STEP")")
  note "$took s"
}

set -E
trap 'printf "%sfailed: %s%s\n" "$RED" "${STEP:-the start}" "$PLAIN" >&2' ERR

step_times() {
  printf '\n%s== Times%s\n' "$BOLD" "$PLAIN"
  printf '%s\n' "${STEP_TIMES[@]}"
  printf '%5d s  all\n' "$((SECONDS - BEGAN))"
}

# may_install: whether packages can be installed without asking anybody.
may_install() { has apt-get && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; }

# install_debian PACKAGE...: installs them, or says what to type.
install_debian() {
  may_install || fail "please install as root: apt-get install $* (names of Debian's packages)"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  note "apt-get install $*"
  "${as_root[@]}" apt-get update -qq
  # Servers are for tests, which start their own: Debian is told not to start them (/usr/share/doc/init-system-helpers).
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin $policy; then made=1; fi
  local status=0
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null || status=$?
  [ -z "$made" ] || "${as_root[@]}" rm -f $policy
  return $status
}

# has COMMAND: whether it is there; the directory of the system's own tools is not in everybody's PATH.
has() { type -P "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

# What building and serving need. Where a tool is there already, from wherever, Debian's is not asked for.
need_tools() {
  has cargo || fail "cargo is missing: install Rust from https://rustup.rs"
  local wanted=()
  has cc || wanted+=(gcc libc6-dev)
  has curl || wanted+=(curl)
  has node || wanted+=(nodejs)
  has npm || wanted+=(npm)
  has python3 || wanted+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
  # The jail sandbox runs the system's own interpreters; packages are resolved in one.
  [ -x /usr/bin/python3 ] || wanted+=(python3)
  { python3 -m pip --version && /usr/bin/python3 -m pip --version; } >/dev/null 2>&1 || wanted+=(python3-pip)
  if [ ${#wanted[@]} -gt 0 ]; then install_debian "${wanted[@]}"; fi
  printf '%s, node %s, %s\n' "$(cargo --version | cut -d' ' -f1-2)" "$(node --version)" "$(python3 --version)"
}

# What the tests need beside that: signals, small disks, wrong clocks, networks of their own that are cut.
need_test_tools() {
  local wanted=()
  has kill || wanted+=(procps)
  has mount || wanted+=(mount)
  has faketime || wanted+=(faketime)
  has ip || wanted+=(iproute2)
  has nft || wanted+=(nftables)
  # Queues whose messages become jobs.
  has nats-server || wanted+=(nats-server)
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || wanted+=(rabbitmq-server)
  # Container images come from one.
  has docker-registry || wanted+=(docker-registry)
  # The installed program is tried on a bare Debian, by its units, and in a container.
  has debootstrap || wanted+=(debootstrap)
  has dpkg-deb || wanted+=(dpkg)
  has readelf || wanted+=(binutils)
  # Proxies as in the guide.
  has nginx || wanted+=(nginx-light)
  has caddy || wanted+=(caddy)
  # An authority of certificates, for ACME.
  has pebble || wanted+=(pebble)
  has systemd-analyze || wanted+=(systemd)
  # The portal in a browser.
  has chromium || wanted+=(chromium)
  has podman || wanted+=(podman)
  has runc || wanted+=(runc)
  # Containers: each engine that functions may run in. The tests start a Docker daemon of their own.
  has crun || wanted+=(crun)
  has runsc || wanted+=(runsc)
  has dockerd || wanted+=(docker.io)
  [ -s /etc/ssl/certs/ca-certificates.crt ] || wanted+=(ca-certificates)
  if [ ${#wanted[@]} -eq 0 ]; then return; fi
  # Tests that lack something skip and say so; what CI skips fails it, after everything else was run.
  if may_install && (install_debian "${wanted[@]}"); then return; fi
  note "without ${wanted[*]} some tests are skipped"
}

build_runtimes() { runtimes/build.sh; }
# Without it, the program serves a page that says how to build it.
build_portal() {
  if has node && has npm; then portal/build.sh; else note "without Node and npm, the program is built without the portal"; fi
}
build_piecework() { cargo build --release ${CI:+--locked} -p piecework; }
