"""The results store of a sweep: records, their compaction and ranking, checkpoints, and the sweeps of a storage.

May import `tune.spec` and `semprior`.
"""
