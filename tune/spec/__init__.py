"""A sweep file, read and checked.

Imports `semprior`.
"""
