"""The command line of `semprior`: reads arguments, calls the rooms below, prints.

Imports every other room of `semprior`.
"""
