"""The trainer: bilevel steps, losses, schedules, selection of the best epoch (method, sections 4 to 7).

Imports `evaluation`, `labels`, `models` and the rooms below them.
"""
