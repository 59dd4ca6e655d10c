"""Statistics of whole images and the clusters of images by them (method, section 8).

Imports `errors`.
"""
