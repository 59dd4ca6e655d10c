"""Probability maps, the metrics of section 9 and the point score.

Imports `models` and the rooms below it.
"""
