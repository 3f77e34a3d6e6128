# shellcheck shell=bash
# What scripts of this folder share; `self` is the name under which one speaks.

say() { echo "${self:?}: $*"; }

# Run a noisy command, and show what it said only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "failed: $*" >&2
        return 1
    fi
    rm -f "$log"
}

# missing PACKAGE...: those of Debian's packages that are not installed.
missing() {
    local installed one
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for one; do grep -qx "$one installed" <<<"$installed" || echo "$one"; done
}

# need PACKAGE...: install what is missing of Debian's packages, which takes root.
need() {
    local absent
    mapfile -t absent < <(missing "$@")
    ((${#absent[@]})) || return 0
    say "Debian packages: ${absent[*]}"
    if ((EUID != 0)); then
        say "they need root to be installed" >&2
        return 1
    fi
    quietly apt-get -q update
    quietly apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "${absent[@]}"
}
