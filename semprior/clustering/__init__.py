"""Statistics of whole images and the clusters made of them (method, section 8).

Imports `errors`.
"""
