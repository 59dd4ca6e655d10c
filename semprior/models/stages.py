"""Which stages of a detector SCAM modulates (method, section 3, "placement")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from semprior.errors import UserError


def placed_stages(choice: Sequence[int] | Literal["all", "none"], count: int) -> tuple[int, ...]:
    """The setting `scam.stages` as stage indices from 0, ascending.

    Args:
        choice: stages counted from 1, ``all`` or ``none``.
        count: number of stages of the detector.

    Raises:
        UserError: the detector lacks a stage, or a stage is named twice.
    """
    if choice == "all":
        return tuple(range(count))
    if choice == "none":
        return ()
    if any(not 1 <= stage <= count for stage in choice):
        raise UserError(f"scam.stages: {list(choice)} names a stage outside 1..{count}, the stages of this detector")
    if len(set(choice)) != len(choice):
        raise UserError(f"scam.stages: {list(choice)} names a stage twice; name each once")
    return tuple(sorted(stage - 1 for stage in choice))
