"""The process and its devices: precision, threads, memory, data parallelism.

Imports `errors`.
"""
