"""Foreign data sets -> folders in the layout of `semprior.data.layout`, one or several at a time.

Its modules import the rest of `semprior.data`, and one another; nothing in `semprior.data` imports them.
"""
