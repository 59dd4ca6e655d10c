"""The student and teacher of a checkpoint: load, evaluate, predict, export.

Imports `evaluation` and the rooms below it.
"""
