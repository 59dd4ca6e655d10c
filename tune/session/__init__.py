"""One life of a sweep: its driver, its trials and their workers.

Imports `launch`, `monitor`, `search`, `store`, `spec` and `semprior`.
"""
