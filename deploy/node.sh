# Sourced on a node before anything of Ray's: where its programs lie and how it speaks to the other nodes.
#
# Ray's launcher runs every command in a login shell with OMP_NUM_THREADS=1, which each worker would inherit.
unset OMP_NUM_THREADS
SEMPRIOR_NODE="$HOME/semprior-cluster"
export PATH="$SEMPRIOR_NODE/.venv/bin:$PATH" PYTHONPATH="$SEMPRIOR_NODE"
# Nobody without the token of ~/.ray/auth_token gets in; the head makes it, and the launcher copies it to the workers.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# A node that has lost its head for so long stops by itself: after `ray down`, too, which stops the head alone.
export RAY_gcs_rpc_server_reconnect_timeout_s=20
# A node counts as dead after 4 questions, 3 s apart, that had no answer for 5 s: about 30 s, half of Ray's own time.
export RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=4
# Seconds between two looks at which workers are to be started.
export AUTOSCALER_UPDATE_INTERVAL_S=2
# How long the head tries to reach a machine before it gives it up for good: 15 minutes are too few for one of one's own,
# which may be switched off over night; a cloud replaces its machines.
if grep -qs '"type": "local"' ~/ray_bootstrap_config.yaml; then export AUTOSCALER_NODE_START_WAIT_S=1000000000; fi
# Ray's newer autoscaler takes the head of a local provider for one of its workers, and then starts one too few (2.60).
export RAY_enable_autoscaler_v2=0
# The address under which the launcher reached this node. Ray's own guess is 127.0.0.1 where there is no default route.
read -r _ _ NODE_ADDRESS _ <<<"${SSH_CONNECTION:-}"
export NODE_ADDRESS
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
