"""One detector a file; every module in this folder is imported by `semprior.models.detector`, none is listed."""
