"""A sweep for other programs: MLflow, a folder of CSV files, an Optuna study. One format a module.

May import `tune.search`, `tune.monitor`, `tune.store`, `tune.spec` and `semprior`.
"""
