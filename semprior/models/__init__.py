"""Detectors, SCAM and the teacher (method, sections 1 and 3).

Imports `foundation`, `kernels` and the rooms below them.
"""
