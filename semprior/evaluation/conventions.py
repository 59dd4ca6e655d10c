"""How published code counts what papers call by the same name; docs/metrics.md sets the conventions side by side."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from semprior.errors import UserError

EmptyUnion = Literal["skip", "zero"]
"""How nIoU counts an image without predicted and true pixels: it omits the image, or counts it as 0."""

FalseArea = Literal["component", "area"]
"""Which predicted components Fa counts: those without a match, or those whose area no matched component has."""


@dataclass(frozen=True)
class Convention:
    """What conventions of the metrics differ in.

    Attributes:
        empty_union: see `EmptyUnion`.
        false_area: see `FalseArea`.
    """

    empty_union: EmptyUnion
    false_area: FalseArea


CONVENTIONS = {
    "semprior": Convention("skip", "component"),
    "paper": Convention("zero", "component"),
    "dnanet": Convention("zero", "area"),
}
"""Ours; that of the published method; that of the code of DNANet, LESPS, MSHNet, BasicIRSTD and SCTransNet."""


def convention_name(preset: str) -> str:
    """The convention that the runs of a preset are evaluated by: the published one only under ``paper``."""
    return "paper" if preset == "paper" else "semprior"


def find_convention(name: str) -> Convention:
    """The convention of a name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in CONVENTIONS:
        near = difflib.get_close_matches(name, CONVENTIONS, 1)
        raise UserError(
            f"--convention {name}: must be {', '.join(list(CONVENTIONS)[:-1])} or {list(CONVENTIONS)[-1]}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return CONVENTIONS[name]
