"""Where a sweep runs: the target of a command, a local Ray, jobs on a cluster, the checks before the start.

Imports `monitor`, `store`, `spec` and `semprior`.
"""
