"""Where a sweep runs: a local Ray, jobs of a cluster, the checks before its start.

Imports `store`, `spec` and `semprior`.
"""
