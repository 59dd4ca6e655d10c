"""What users see of a running sweep: heartbeats, progress, tables.

Imports `store`, `spec` and `semprior`.
"""
