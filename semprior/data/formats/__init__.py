"""Annotations as other tools write them, one format a module.

Its modules import `semprior.errors`, `semprior.reading` and one another. Each reads files into `Mark` objects by image
and interprets no pixel: that is left to `semprior.data.importing`.
"""
