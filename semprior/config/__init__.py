"""The settings of a run: their types, ranges and sources.

Imports `errors` and `reading`.
"""
