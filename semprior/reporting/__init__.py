"""What a person sees of a run: terminal, TensorBoard, figures.

Imports `training`, `deployment` and the rooms below them.
"""
