"""What is tried next, and what is stopped early.

Imports `store`, `spec` and `semprior`.
"""
