# shellcheck shell=bash
# What scripts/test and scripts/check share: words, root's rights, Debian packages, the cache folder.

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd -- "$root" || exit 1

# What is built once and kept between runs.
cache="${KEYMOUNT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keymount-tests}"

readonly NO_ROOT="root's rights are needed: run it as root, or allow this user sudo without a password, and start again."

can_be_root() { [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

# Runs a command with root's rights, or says why it can't. Never asks for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif can_be_root; then
        sudo -n "$@"
    else
        say "for \"$*\" $NO_ROOT" >&2
        return 1
    fi
}

# need_cargo: finds the Rust toolchain, also where no login shell put it on the path.
need_cargo() {
    if ! have cargo && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    have cargo || die "cargo is not installed: install Rust from https://rustup.rs and start again."
    export CARGO_TERM_COLOR=never
}

# need_packages sign:package ...: installs the packages whose sign (a command, or a file with its whole path) is
# missing; quick when none is.
need_packages() {
    local pair sign missing=()
    for pair in "$@"; do
        sign="${pair%%:*}"
        have "$sign" || [[ "$sign" == /* && -e "$sign" ]] || missing+=("${pair##*:}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    have apt-get || die "these are missing and there is no apt-get to install them: ${missing[*]}"
    can_be_root || die "to install ${missing[*]} $NO_ROOT"
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null ||
        say "the package lists could not be renewed; trying with the old ones"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
        die "apt-get could not install ${missing[*]}"
}

# install_crate name version [cargo install options ...]: builds a program once into $cache/name-version.
# Two runs at the same time build it once: the second waits for the first.
install_crate() {
    local name="$1" version="$2" target lock folder
    shift 2
    folder="$cache/$name-$version"
    mkdir -p -- "$cache"
    exec {lock}>"$cache/.$name-$version.lock"
    flock "$lock"
    # Cargo writes this list after the binary is in its place, so it says that the build was complete.
    if [ -x "$folder/bin/$name" ] && grep -qs "^\"$name $version " "$folder/.crates.toml"; then
        exec {lock}>&-
        return 0
    fi
    say "building $name $version into $folder (once; this takes some minutes)"
    target="$(mktemp -d "$cache/.build.XXXXXX")"
    local try built=no
    # The lock file inside the crate may name versions that a mirror of the registry lacks.
    for try in --locked ""; do
        if CARGO_TARGET_DIR="$target" cargo install "$name" --version "$version" ${try:+"$try"} \
            --force --root "$folder" "$@" </dev/null >"$target/log" 2>&1 {lock}>&-; then
            built=yes
            break
        fi
    done
    [ "$built" = yes ] || tail -n 30 -- "$target/log" >&2
    rm -rf -- "$target"
    exec {lock}>&-
    [ "$built" = yes ]
}

# install_npm name folder: installs what the folder's package-lock.json names, with the folder's scripts beside it, once
# for each state of the folder. Its place is then in $installed.
install_npm() {
    local name="$1" source="$2" sum lock target
    sum="$(cat -- "$source"/*.json "$source"/*.mjs | sha256sum | cut -c 1-16)"
    installed="$cache/$name-$sum"
    mkdir -p -- "$cache"
    exec {lock}>"$cache/.$name.lock"
    flock "$lock"
    if [ ! -d "$installed" ]; then
        say "installing $name into $installed (once)"
        target="$(mktemp -d "$cache/.npm.XXXXXX")"
        cp -- "$source"/*.json "$source"/*.mjs "$target"
        if (cd -- "$target" && npm ci --no-audit --no-fund --ignore-scripts </dev/null >npm.log 2>&1 {lock}>&-); then
            chmod 755 -- "$target"
            mv -- "$target" "$installed"
        else
            tail -n 30 -- "$target/npm.log" >&2
            rm -rf -- "$target"
        fi
    fi
    exec {lock}>&-
    [ -d "$installed" ]
}

# install_pypi name version [further packages]: installs a Python program once into $cache/name-version, a virtual
# environment of its own.
install_pypi() {
    local name="$1" version="$2" lock folder building
    shift 2
    folder="$cache/$name-$version"
    mkdir -p -- "$cache"
    exec {lock}>"$cache/.$name-$version.lock"
    flock "$lock"
    # Written last, so it says that the installation was complete.
    if [ -e "$folder/.complete" ]; then
        exec {lock}>&-
        return 0
    fi
    say "installing $name $version into $folder (once)"
    building="$(mktemp "$cache/.log.XXXXXX")"
    # Its programs name the folder, so it is made where it stays.
    rm -rf -- "$folder"
    if python3 -m venv "$folder" </dev/null >"$building" 2>&1 {lock}>&- &&
        "$folder/bin/pip" --disable-pip-version-check install "$name==$version" "$@" </dev/null >>"$building" 2>&1 {lock}>&-; then
        : >"$folder/.complete"
    else
        tail -n 30 -- "$building" >&2
    fi
    rm -f -- "$building"
    exec {lock}>&-
    [ -e "$folder/.complete" ]
}
