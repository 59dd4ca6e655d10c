"""The page of a sweep for a browser: what won, by how much and how sure, which dimensions mattered, what it cost.

May import `tune.launch`, `tune.search`, `tune.comparison`, `tune.monitor`, `tune.store`, `tune.spec` and `semprior`.
"""
