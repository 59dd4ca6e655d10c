"""One session of a sweep: its driver, from start to end, with the processes of its trials and their workers.

Imports `launch`, `monitor`, `search`, `store`, `spec` and `semprior`.
"""
