# Shared by the scripts: where things are, installing what is missing, and cargo's settings.
# Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
tools=${LOGFERRY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/logferry/tools}
export PATH="$tools/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE: installs the apt package unless the command is there; fails loudly where it cannot.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    [ -x "/usr/sbin/$1" ] && return
    command -v apt-get >/dev/null 2>&1 || die "$1 is missing and there is no apt-get: install $2 by hand"
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if [ -z "${apt_updated:-}" ]; then
        "${as_root[@]}" apt-get update -qq || die "apt-get update failed: $1 (package $2) cannot be installed"
        apt_updated=1
    fi
    echo "installing $2"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null ||
        die "apt-get install $2 failed: install it by hand"
}

# One set of flags for all scripts, so that they share one target folder; mold halves the time of links.
setup_cargo() {
    command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust 1.88 or later (rustup)"
    need cc gcc
    need mold mold
    export RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-fuse-ld=mold"
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} CARGO_TERM_PROGRESS_WHEN=${CARGO_TERM_PROGRESS_WHEN:-never}
}
