"""How many threads a process computes with."""

from __future__ import annotations

import cv2
import torch


def use_threads(count: int) -> None:
    """Compute with so many threads, in torch and in OpenCV, which otherwise has one for each core of the machine.

    Args:
        count: at least 1; fewer count as 1, the thread that calls.
    """
    threads = max(1, count)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
