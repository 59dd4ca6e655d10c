"""From a data folder to checked scenes, splits, crops and batches (method, section 7).

Imports `io`, `config`, `runtime` and `clustering`.
"""
