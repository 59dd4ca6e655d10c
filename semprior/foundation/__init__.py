"""The frozen vision foundation model, its weights, and features computed once (method, section 2).

Imports `data`, `runtime`, `io`, `config`.
"""
