"""The service: hyperparameter search over the method, on Ray and Optuna. Imports `semprior`, never the reverse."""
