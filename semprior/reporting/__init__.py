"""Output of a run for people: terminal, TensorBoard, figures.

Imports `training`, `deployment` and the rooms below them.
"""
