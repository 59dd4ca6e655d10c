"""Every setting of a run, its range and its source.

Imports `errors`.
"""
