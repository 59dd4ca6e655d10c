"""Detectors of small infrared targets, trained from single points with semantic priors."""

__version__ = "0.1.0"
