"""Files that appear whole or not at all, folders and buckets, caches, checkpoints.

Imports `errors`.
"""
