"""The student on its own: load, evaluate, predict, export.

Imports `evaluation` and the rooms below it.
"""
