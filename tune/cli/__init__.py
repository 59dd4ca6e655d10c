"""The commands of `semprior-tune`.

Imports every other room of `tune`, and `semprior`.
"""
