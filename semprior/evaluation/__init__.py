"""Inference on whole images, the metrics (method, section 9) and the point score.

Imports `models` and the rooms below it.
"""
