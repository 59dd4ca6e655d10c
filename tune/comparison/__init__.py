"""Compares configurations on the same images: stored terms of evaluations, differences with their errors, bands.

May import `tune.spec`, `tune.store` and `semprior`.
"""
