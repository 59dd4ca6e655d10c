"""First pseudo-masks, their evolution and the admission of hard images (method, section 6).

Imports `data` and the rooms below it.
"""
