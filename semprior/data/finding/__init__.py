"""What a data folder holds, by names and lists: splits, sequences, files that are not read, and what is said of them.

Its modules import `semprior.data.images` and `semprior.data.image_tables`, and one another.
"""
