"""Training on true masks, ``labels.seed=masks``: the reference that supervision by points is compared with.

No preset has it and no sweep may, and every report of such a run says it.
"""

from __future__ import annotations

TRUE_MASKS = "masks"


def true_masks_remark(seed: str) -> str | None:
    """What every report of a run says whose setting `labels.seed` is `seed`; None if it learns from points."""
    if seed != TRUE_MASKS:
        return None
    return f"trained on TRUE MASKS (labels.seed={TRUE_MASKS}): a reference, not what points give"
