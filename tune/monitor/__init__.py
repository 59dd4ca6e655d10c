"""What a person sees of a running sweep: heartbeats, progress, tables.

Imports `store`, `spec` and `semprior`.
"""
