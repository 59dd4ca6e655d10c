"""The search: the search space, the sampler, early stopping, the history of configurations, importance and promotion.

May import `tune.store`, `tune.spec` and `semprior`.
"""
