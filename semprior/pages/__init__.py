"""Pages for a browser: one HTML file each, which holds its charts and pictures and fetches nothing.

Imports `reporting` and the rooms below it.
"""
