"""Files, storages and caches: atomic writes, locks, manifests, checkpoints, transfers between machines.

Imports `errors` and `reading`.
"""
