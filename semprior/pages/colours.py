"""Colours that people with any kind of colour vision tell apart, on light and on dark ground.

Source: M. Okabe and K. Ito, "Color Universal Design", 2008.
"""

BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
YELLOW = "#F0E442"
GREY = "#888888"
FADED = "rgba(136, 136, 136, 0.35)"
"""For what is there but does not matter, such as curves of trials that were stopped."""

SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""The colours of curves in their order; charts take them by themselves."""
