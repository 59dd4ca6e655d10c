"""A sweep's only memory: records, checkpoints, ranking.

Imports `spec` and `semprior`.
"""
