#!/usr/bin/env bash
# Start Ray on a worker, anew where it runs already, and see that nothing of it is left once it has lost its head.
#
#   worker.sh HEAD_ADDRESS [options of `ray start`]
#
# `ray down` stops the head alone. A raylet without its head ends after a while, but agents and log monitor stay; here
# the `ray start --block` that watches it ends with it, and what is left is stopped, unless a newer start took over. It
# does not end when such a start stops its raylet, and is ended then.
set -euo pipefail
node=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$node/deploy/node.sh"
head=$1
shift

newest() { [ "$(cat "$node/.started")" = $$ ]; }
start() {
    ray stop
    : >"$node/ray.log"
    setsid bash -c '
        newest() { [ "$(cat "$2")" = "$3" ]; }
        ray start --address="$1:6379" --node-ip-address="$NODE_ADDRESS" --block "${@:4}" &
        while newest "$@" && kill -0 $! 2>/dev/null; do sleep 1; done
        if newest "$@"; then ray stop --force; else kill $!; fi
    ' worker "$head" "$node/.started" $$ "$@" >"$node/ray.log" 2>&1 </dev/null &
    until grep -q "Ray runtime started" "$node/ray.log"; do
        if ! kill -0 $! 2>/dev/null; then
            cat "$node/ray.log"
            return 1
        fi
        sleep 0.2
    done
}

echo $$ >"$node/.started"
# The head asks once: to it, a worker whose start has failed is lost for good.
for pause in 5 10 20 40; do
    if start "$@"; then exit; fi
    sleep "$pause"
    newest || exit 1
done
start "$@"
