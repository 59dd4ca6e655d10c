"""Sweep files: reading them, checking them, and the search dimensions that they define.

May import `semprior`, and no other room of `tune`.
"""
