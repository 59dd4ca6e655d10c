"""Detectors of small infrared targets, trained from single points with semantic priors."""

__version__ = "0.1.0"
NUMERICS = 2
"""Increase it when the same settings and data train to other numbers: a sweep does not go on with another version."""
