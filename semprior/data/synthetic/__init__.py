"""Infrared scenes with small targets, drawn from a seed.

Imports `data`.
"""
