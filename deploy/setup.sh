#!/usr/bin/env bash
# Make a node ready: one virtual environment with the packages of requirements.txt, `ray` for login shells.
#
# Runs on every node at every `ray up`, by several launchers at once if need be. Where the environment is ready this
# takes a moment, touches nothing and needs no network. What was cut off is begun again.
set -euo pipefail
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import ensurepip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}
apt() {
    local sudo
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --option DPkg::Lock::Timeout=300 "$@"
}
install_venv() {
    # A machine that has just started at a cloud installs things itself: first cloud-init, then unattended upgrades.
    if command -v cloud-init >/dev/null; then timeout 600 cloud-init status --wait >/dev/null || true; fi
    local try
    for try in {1..30}; do # the lists have a lock that apt-get does not wait for
        apt update && break
        sleep 10
    done
    apt install --no-install-recommends python3-venv
}

node=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec 9>"$node/.setup-lock"
flock 9

wanted=$(sha256sum <"$node/deploy/requirements.txt")
if [ "$(cat "$node/.ready" 2>/dev/null)" != "$wanted" ]; then
    if ! "$node/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
        if ! python=$(find_python); then
            install_venv
            python=$(find_python) || { echo "setup.sh: no Python 3.11 or later with venv on $(hostname)" >&2; exit 1; }
        fi
        "$python" -m venv --clear "$node/.venv"
    fi
    "$node/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$node/deploy/requirements.txt"
    printf '%s' "$wanted" >"$node/.ready"
fi

# `ray down` and `ray exec` call plain `ray` in a login shell.
mkdir -p "$node/bin"
if [ ! -x "$node/bin/ray" ]; then
    printf '#!/usr/bin/env bash\n. "%s/deploy/node.sh"\nexec "%s/.venv/bin/ray" "$@"\n' "$node" "$node" >"$node/bin/ray"
    chmod +x "$node/bin/ray"
fi
line="export PATH=\"\$PATH:$node/bin\""
grep -qxF "$line" ~/.bashrc 2>/dev/null || printf '%s\n' "$line" >>~/.bashrc
